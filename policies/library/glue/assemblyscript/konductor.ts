// What a policy written in AssemblyScript needs around its rules: memory, and the words that policies share.
//
// A policy exports the five functions of the ABI from its entry file, in a few lines each: see `sticky/policy.ts`. What
// comes from "build" is made by the build. Everything lives until the end of the call: an instance is used once.
import { NAME, PARAMS_SCHEMA, VERSION } from "build";
import { Json, Kind, quoted, read } from "./json";

// 366 days, as everywhere in the API. Longer is a typing error.
const DURATION_MAX_MS: i64 = 366 * 24 * 60 * 60 * 1000;
// The most errors that are told at once: a person repairs a few and asks again.
const ERRORS_MAX = 16;
// The most of a value that an error repeats; a longer one is recognised by its beginning.
const SHOWN_MAX = 40;

// Where the host may write so many bytes; 0 if there is no room.
export function room(len: i32): usize {
  // The allocator would trap; and what is above the host's limit is not there.
  if (len < 0 || len > 16 * 1024 * 1024) return 0;
  return heap.alloc(len);
}

// A text for the host to read.
export function give(text: string): i64 {
  const bytes = String.UTF8.encode(text);
  return (<i64>changetype<usize>(bytes) << 32) | <i64>bytes.byteLength;
}

export function describe(about: string): i64 {
  return give(
    `{"name":${quoted(NAME)},"version":${quoted(VERSION)},"description":${quoted(about)},"paramsSchema":${PARAMS_SCHEMA}}`,
  );
}

// The params as an object; null, and an error, if they are something else.
export function object(at: usize, len: usize, errors: Errors): Json | null {
  const value = read(at, len);
  if (value != null && value.kind == Kind.Object) return value;
  errors.list.push("params: not a JSON object");
  return null;
}

// The host vouches for the input; what is not one traps.
export function input(at: usize, len: usize): Json {
  const value = read(at, len);
  assert(value != null && value.kind == Kind.Object, "the input is not the ABI's");
  return value!;
}

// ---- What policies share

// A duration as a Lease writes it, in milliseconds, up to 366 days; -1 if it is none.
export function durationMs(text: string): i64 {
  if (text == "0") return 0;
  let total: i64 = 0;
  let at = 0;
  while (at < text.length) {
    const start = at;
    let number: i64 = 0;
    while (at < text.length && text.charCodeAt(at) >= 0x30 && text.charCodeAt(at) <= 0x39) {
      number = number * 10 + (text.charCodeAt(at++) - 0x30);
      if (number > DURATION_MAX_MS) return -1;
    }
    if (at == start || at == text.length) return -1;
    const unit = text.charAt(at++);
    let ms: i64 = 0;
    if (unit == "m" && at < text.length && text.charAt(at) == "s") {
      ms = 1;
      at++;
    } else if (unit == "s") ms = 1000;
    else if (unit == "m") ms = 60 * 1000;
    else if (unit == "h") ms = 60 * 60 * 1000;
    else if (unit == "d") ms = 24 * 60 * 60 * 1000;
    else return -1;
    total += number * ms;
    if (total > DURATION_MAX_MS) return -1;
  }
  return text.length > 0 ? total : -1;
}

function shown(text: string): string {
  if (text.length <= SHOWN_MAX) return text;
  const end = text.charCodeAt(SHOWN_MAX - 1) >> 10 == 0xd800 >> 10 ? SHOWN_MAX - 1 : SHOWN_MAX;
  return text.substring(0, end);
}

function described(value: Json): string {
  switch (value.kind) {
    case Kind.Null: return "null";
    case Kind.False: return "false";
    case Kind.True: return "true";
    case Kind.Whole: return value.whole.toString();
    case Kind.Fraction: return "this number";
    case Kind.Text: return `"${shown(value.text)}"`;
    case Kind.List: return "a list";
    default: return "an object";
  }
}

// What is wrong with the params.
export class Errors {
  list: string[] = [];

  // `name: value problem`, as all policies say it.
  add(name: string, value: Json, problem: string): void {
    if (this.list.length < ERRORS_MAX) this.list.push(`${shown(name)}: ${described(value)} ${problem}`);
  }

  written(): i64 {
    return give(`{"errors":[${this.list.map<string>((error) => quoted(error)).join(",")}]}`);
  }
}

// What was asked for, never above the lease's, and never nothing.
export function ttlMs(asked: i64, lease: i64): i64 {
  return max(min(asked, lease), 1);
}

// For how long a moment has passed; not at all if a clock stepped back behind it.
export function since(moment: i64, now: i64): i64 {
  return max(now - moment, 0);
}

// The index of the request of the highest priority; among equals the first that came. -1 if there is none.
export function highest(requests: Json[]): i32 {
  let best = -1;
  for (let i = 0; i < requests.length; i++) {
    if (best < 0 || requests[i].wholeOf("priority") > requests[best].wholeOf("priority")) best = i;
  }
  return best;
}

// An answer. What is not set is left out.
export class Answer {
  hold: string = "";
  granted: i32 = -1;
  ttl: i64 = 0;
  wake: i64 = 0;
  reason: string = "";

  grant(input: Json, index: i32): void {
    const lease = input.objectOf("lease");
    const asked = input.listOf("requests")[index].wholeOf("ttlMs");
    this.granted = index;
    this.ttl = ttlMs(asked, lease != null ? lease.wholeOf("ttlMs") : 0);
  }

  written(): i64 {
    const members: string[] = [];
    if (this.hold != "") members.push(`"hold":{${this.hold}}`);
    if (this.granted >= 0) members.push(`"grant":{"request":${this.granted},"ttlMs":${this.ttl}}`);
    if (this.wake > 0) members.push(`"wakeInMs":${this.wake}`);
    if (this.reason != "") members.push(`"reason":${quoted(this.reason)}`);
    return give(`{${members.join(",")}}`);
  }
}

// The usual frame around a policy's own rule, which says who is next: a renewal is allowed where the lease allows it, and
// a hold whose time is over ends in the answer that grants to the next. Says whether the policy is to say who is next.
export function nextIsWanted(input: Json, answer: Answer): bool {
  const hold = input.objectOf("hold");
  if (hold == null) return true;
  const lease = input.objectOf("lease");
  const renewable = lease != null && lease.isTrue("renewable");
  const wanted = hold.isTrue("renewalRequested");
  const leaving = hold.objectOf("preemption") != null;
  const renewal = `"action":"renew","ttlMs":${ttlMs(hold.wholeOf("ttlMs"), lease != null ? lease.wholeOf("ttlMs") : 0)}`;
  if (hold.isTrue("due")) {
    // Late by a moment: an end would help nobody.
    const late = wanted && renewable && !leaving && input.listOf("requests").length == 0;
    answer.hold = late ? renewal : '"action":"expire"';
    if (late) answer.reason = "renewed late: nobody else was waiting";
    return !late;
  }
  if (!wanted) return false;
  if (renewable && !leaving) {
    answer.hold = renewal;
    answer.reason = "renewed";
  } else {
    answer.hold = '"action":"keep"';
    answer.reason = leaving
      ? "not renewed: the holder is asked to leave"
      : "the lease is not renewable (spec.renewable: false)";
  }
  return false;
}
