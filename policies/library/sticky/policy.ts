// The holder that had the lease last gets it back first, if it comes in time. For work that warms up: caches,
// connections, a leader that restarts. README.md beside this file says what the params mean.
import { Json, Kind } from "../glue/assemblyscript/json";
import {
  Answer, Errors, describe, durationMs, highest, input, nextIsWanted, object, room, since,
} from "../glue/assemblyscript/konductor";

const ABOUT = "The holder that had the lease last gets it back first, if it comes in time.";

class Params {
  within: i64 = 30_000;
}

function params(given: Json | null, errors: Errors): Params {
  const read = new Params();
  if (given == null) return read;
  for (let i = 0; i < given.names.length; i++) {
    const name = given.names[i];
    const value = given.members[i];
    if (name == "within") {
      read.within = value.kind == Kind.Text ? durationMs(value.text) : -1;
      if (read.within < 0) errors.add(name, value, 'is not a duration up to 366 days; write one such as "30s"');
    } else {
      errors.add(name, value, "is not a param of this policy, which knows within");
    }
  }
  return read;
}

export function konductor_policy_v1(): void {}

export function konductor_alloc(len: i32): usize {
  return room(len);
}

export function konductor_describe(): i64 {
  return describe(ABOUT);
}

export function konductor_validate(at: usize, len: usize): i64 {
  const errors = new Errors();
  params(object(at, len, errors), errors);
  return errors.written();
}

export function konductor_decide(at: usize, len: usize): i64 {
  const asked = input(at, len);
  const errors = new Errors();
  const read = params(asked.objectOf("params"), errors);
  assert(errors.list.length == 0, "the params are refused by konductor_validate");
  const answer = new Answer();
  if (nextIsWanted(asked, answer)) next(asked, read, answer);
  return answer.written();
}

function next(asked: Json, params: Params, answer: Answer): void {
  const requests = asked.listOf("requests");
  if (requests.length == 0) return;
  const now = asked.wholeOf("now");
  const hold = asked.objectOf("hold");
  const history = asked.listOf("history");
  let last = "";
  let left: i64 = 0;
  if (hold != null) {
    // This answer ends it.
    last = hold.textOf("holder");
    left = params.within;
  } else if (history.length > 0 && history[0].textOf("how") != "ForceReleased") {
    // Whoever was evicted by a person is not waited for.
    last = history[0].textOf("holder");
    left = params.within - since(history[0].wholeOf("ended"), now);
  }
  if (left > 0) {
    for (let i = 0; i < requests.length; i++) {
      if (requests[i].textOf("holder") != last) continue;
      answer.grant(asked, i);
      answer.reason = "it had the lease last";
      return;
    }
    answer.wake = left;
    answer.reason = "waiting for the last holder to come back";
    return;
  }
  answer.grant(asked, highest(requests));
  answer.reason = "highest priority, then first come";
}
