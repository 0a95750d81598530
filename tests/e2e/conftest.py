"""Fixtures of the end-to-end tests. All that a test starts is stopped, and must end cleanly; when a test fails, what
the processes said is printed."""

import pytest

import harness


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for process in list(harness.Process.running):
            name = " ".join(process.arguments[1:4])
            lines = process.lines if len(process.lines) < 100 else [*process.lines[:40], "...", *process.lines[-60:]]
            report.sections.append((f"output of parry {name}", "\n".join(lines)))


class Things:
    """Starts things and stops them in reverse order."""

    def __init__(self, directory):
        self.directory = directory
        self._started = []
        self._folders = 0

    def sim(self, *arguments):
        return self.keep(harness.Sim(*arguments))

    def provider(self, *steps, **options):
        return self.keep(harness.Provider(*steps, **options))

    def receiver(self):
        return self.keep(harness.Receiver())

    def folder(self, init, **options):
        self._folders += 1
        return harness.Folder(self.directory / f"policies{self._folders}", init, **options)

    def gateway(self, init, *arguments, env=None, **options):
        """`init`: the text of init.lua, or a Folder."""
        folder = self.folder(init, **options) if isinstance(init, str) else init
        return self.keep(harness.Gateway(folder, *arguments, env=env))

    def keep(self, thing):
        """Stops what a test made itself, too."""
        self._started.append(thing)
        return thing

    def stop(self):
        problems = []
        for thing in reversed(self._started):
            try:
                if not isinstance(thing, harness.Process) or thing in harness.Process.running:
                    thing.stop()
            except AssertionError as problem:
                problems.append(f"{problem}\n" + "\n".join(getattr(thing, "lines", [])[-150:]))
        assert not problems, "\n\n".join(problems)


@pytest.fixture
def start(tmp_path):
    """Starts what one test needs: start.sim(), start.provider(…), start.gateway(init)."""
    things = Things(tmp_path)
    yield things
    things.stop()


@pytest.fixture(scope="module")
def start_once(tmp_path_factory):
    """The same for what the tests of a file share."""
    things = Things(tmp_path_factory.mktemp("shared"))
    yield things
    things.stop()
