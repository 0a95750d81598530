# Adds up what the test programs in a ctest log (LastTest.log) report and prints "PASSED FAILED SKIPPED".
# Understood: cmocka, and any last line like "3 passed, 1 failed, 2 skipped" (pytest, parry test). A program that
# reports nothing is one test; one that ends badly counts at least one failure, whatever it reported.

/^"[^"]+" start time: / { in_test = 1; good = 0; p = f = s = 0; lines_p = lines_f = lines_s = 0 }
!in_test { next }

/^\[  PASSED  \] [0-9]+ test\(s\)/ { p += $4 }
/^\[  FAILED  \] [0-9]+ test\(s\)/ { f += $4 }
/^\[  SKIPPED \] [0-9]+ test\(s\)/ { s += $4 }

/(^|[^0-9a-z])[0-9]+ (passed|failed|errors?|skipped)/ {
  lines_p = number($0, "passed"); lines_f = number($0, "failed") + number($0, "errors?"); lines_s = number($0, "skipped")
}

/^Test Passed\.$/ { good = 1 }

/^"[^"]+" end time: / {
  p += lines_p; f += lines_f; s += lines_s
  if (good && p + f + s == 0) p = 1
  if (!good && f == 0) f = 1
  passed += p; failed += f; skipped += s
  in_test = 0
}

END { print passed + 0, failed + 0, skipped + 0 }

function number(line, word) {
  if (!match(line, "[0-9]+ " word)) return 0
  return substr(line, RSTART, RLENGTH) + 0
}
