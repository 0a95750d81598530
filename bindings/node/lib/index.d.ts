/// <reference types="node" />

/** One set of policies at work. Its threads do the calls; the event loop is held up only while something is open. */
export class Engine {
  /** Loads the policies, some milliseconds. Throws PolicyError when they are refused. */
  constructor(options: EngineOptions);
  static create(options: EngineOptions): Promise<Engine>;
  /** Hands over an HTTP call. Rejects with ParryError when it failed for good, with the signal's reason when aborted. */
  call(request: CallRequest): Promise<Answer>;
  /** The same, piece by piece; a slow reader holds the provider back. Leaving the loop ends the call. */
  stream(request: CallRequest): AnswerStream;
  /** A WHATWG fetch() for SDKs; of the URL only path and query count. Errors carry `x-should-retry: false`. */
  fetch: typeof globalThis.fetch;
  /** Puts a function under the policies: it is called for each attempt; what it throws is the failure. */
  guard<A extends unknown[], R>(
    target: string | null | undefined,
    make: (attempt: Attempt, ...args: A) => R | PromiseLike<R>,
    options?: GuardOptions,
  ): (...args: A) => Promise<R>;
  /** What to do about a failure of the program's own. A handler that would have to wait has nothing to say. */
  decide(event: ParryEvent): Decision;
  /** The same, waiting for such handlers. */
  decideAsync(event: ParryEvent): Promise<Decision>;
  /** Tells how an attempt of the program's own went, so that breakers and budgets know. */
  report(event: ParryEvent): void;
  /** Tells every on_event handler that something happened. At most 64 KiB. */
  emit(name: string, fields?: Record<string, unknown>): void;
  /** Lets policies call host.call(name, arguments); null takes it back. What it throws they see as an error. */
  register(name: string, answer: ((args: any) => unknown) | null): void;
  status(): Status;
  metrics(): Sample[];
  /** What the last load or reload found, "file:line: text" each. */
  findings(): string[];
  /** Reads the policies again. Rejects with PolicyError when they are refused: the old ones go on. */
  reload(): Promise<Status>;
  /** Ends what is open (category "cancelled") and the engine's threads. Every later use throws PARRY_EFREED. */
  close(): void;
}

export interface EngineOptions {
  /** The folder with init.lua; or `init`. */
  policyDir?: string | URL;
  /** The text of an init.lua. */
  init?: string;
  /** Policies for every file that the folder lacks; those of this package. "": none. */
  shareDir?: string;
  /** Where rotated refresh tokens are kept. */
  stateDir?: string;
  /** Certificates to trust, a PEM file, instead of the system's. Not what NODE_EXTRA_CA_CERTS names. */
  caFile?: string;
  /** Found by `secret "NAME"` before files and environment are searched. */
  secrets?: Record<string, string>;
  /** A saved edit goes live by itself. */
  watch?: boolean;
  /** 1 */
  threads?: number;
  deciders?: number;
  maxCalls?: number;
  /** Bytes */
  maxBuffered?: number;
  logLevel?: 'debug' | 'info' | 'warn' | 'error';
  /** A line of JSON. */
  onLog?: (line: string, level: 'debug' | 'info' | 'warn' | 'error') => void;
  onAlert?: (alert: Alert) => void;
  onReload?: (info: ReloadInfo) => void;
}

type HeadersLike = Headers | Iterable<readonly [string, string]> | Record<string, string | readonly string[] | undefined>;

export interface CallRequest {
  /** As a client of the gateway would send it: "/v1/chat/completions". */
  path: string;
  /** "POST" */
  method?: string;
  headers?: HeadersLike;
  /** At most 16 MiB. */
  body?: string | ArrayBuffer | ArrayBufferView;
  /** Instead of body: sent as JSON. */
  json?: unknown;
  /** "provider/model" of the first attempt; else as the route says. */
  target?: string;
  signal?: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
  readonly attempts: number;
  readonly target: string;
  readonly callId: string;
  readonly generation: string;
  text(): string;
  json(): any;
}

export interface AnswerStream extends AsyncIterableIterator<Buffer> {
  /** Known from the first piece on, or once start() has resolved. */
  readonly status: number | undefined;
  readonly headers: Headers | undefined;
  /** After the last piece. */
  readonly outcome: Outcome | undefined;
  start(): Promise<this>;
}

export interface Outcome {
  readonly ok: boolean;
  readonly status: number;
  readonly category: Category | 'none';
  readonly code: string;
  readonly message: string;
  readonly why: string;
  /** Seconds; negative: not known. */
  readonly retryAfter: number;
  readonly attempts: number;
  readonly target: string;
  readonly callId: string;
  readonly generation: string;
  readonly truncated: boolean;
}

export type Category = 'auth' | 'permission' | 'billing' | 'rate_limit' | 'overloaded' | 'server' | 'timeout' | 'network' |
  'invalid_request' | 'not_found' | 'context_length' | 'content_policy' | 'conflict' | 'payload_too_large' | 'cancelled' | 'unknown';

/** A call that failed for good. */
export class ParryError extends Error {
  readonly name: 'ParryError';
  readonly category: Category;
  readonly status: number;
  /** The provider's own word: "insufficient_quota"; "". */
  readonly code: string;
  /** The last words of the policies about it; "". */
  readonly why: string;
  /** Seconds until it may work again. */
  readonly retryAfter: number | undefined;
  readonly attempts: number;
  readonly target: string;
  readonly callId: string;
  readonly generation: string;
  readonly truncated: boolean;
  readonly headers: Headers | undefined;
  readonly body: Buffer | undefined;
}

/** Policies that were refused. */
export class PolicyError extends Error {
  readonly name: 'PolicyError';
  readonly code: 'PARRY_EPOLICY';
  readonly findings: string[];
}

export interface GuardOptions {
  /** The route is found by it: `/${target}` when not said. */
  path?: string;
  /** The request's body, for policies that look at it. */
  json?: unknown;
  signal?: AbortSignal;
}

export interface Attempt {
  readonly target: string;
  readonly provider: string;
  readonly model: string;
  /** 1, 2, … */
  readonly attempt: number;
  /** Seconds. */
  readonly deadlineLeft: number;
  /** Aborted when the attempt is not wanted any more. */
  readonly signal: AbortSignal;
}

/** How something ended that the program did itself, or (with `name`) something that happened. */
export interface ParryEvent {
  ok?: boolean;
  /** An exception: its status, code, category, retryAfter, headers and message are taken. */
  error?: unknown;
  status?: number;
  curlCode?: number;
  category?: Category;
  code?: string | number;
  message?: string;
  /** Seconds. */
  retryAfter?: number;
  notSent?: boolean;
  headers?: HeadersLike;
  body?: string | ArrayBuffer | ArrayBufferView;
  route?: string;
  target?: string;
  attempt?: number;
  deadlineLeft?: number;
  notRepeatable?: boolean;
  /** It took so long. */
  seconds?: number;
  name?: string;
  fields?: Record<string, unknown>;
}

export interface Decision {
  readonly action: 'fail' | 'retry' | 'fallback' | 'renew' | 'respond';
  readonly status: number;
  /** Seconds to wait first. */
  readonly after: number;
  /** Of a fallback. */
  readonly target: string;
  readonly category: Category | 'none';
  readonly policy: string;
  readonly why: string;
  /** Of a respond. */
  readonly body?: string;
}

export interface Status {
  readonly generation: string;
  readonly version: string;
  readonly loadedAt: number;
  readonly policies: number;
  readonly policyTests: number;
  readonly reloads: number;
  readonly reloadsRefused: number;
  readonly rollbacks: number;
  readonly policyFaults: number;
  readonly logLinesLost: number;
  readonly open: number;
  readonly buffered: number;
}

export interface Sample {
  readonly name: string;
  readonly type: 'counter' | 'gauge' | 'histogram';
  readonly help: string;
  readonly labels: string;
  readonly value: number;
}

export interface Alert {
  readonly key: string;
  readonly sink: string;
  readonly severity: 'info' | 'warning' | 'error' | 'critical';
  readonly title: string;
  readonly text: string;
  readonly cause: string;
  readonly resolved: boolean;
  readonly count: number;
}

export interface ReloadInfo {
  /** false: refused, the old ones go on. */
  readonly ok: boolean;
  readonly generation: string;
  readonly findings: string[];
  readonly rolledBack: boolean;
}

/** Of libparry. */
export const version: string;
