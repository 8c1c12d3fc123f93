//! A holder whose holds keep running out waits longer each time, up to a limit.
//!
//! A hold that expires is one that nobody gave back: its holder crashed, hung or lost its network. If that holder gets the
//! lease again at once, it keeps it from those who work. README.md beside this file says what the params mean.
const std = @import("std");
const konductor = @import("konductor");
const Input = konductor.Input;
const Output = konductor.Output;

pub const panic = konductor.panic;
pub const about = "A holder whose holds keep expiring waits longer each time, up to a limit.";
pub const params_schema = @embedFile("params.schema.json");

comptime {
    konductor.exportPolicy(@This());
}

/// The history has 8 holds, so the delay doubles 7 times at most; more would only be a shift too far.
const doublings_max = 16;

pub const Params = struct {
    base_ms: i64 = 10_000,
    max_ms: i64 = 300_000,
    /// How many holds may expire in a row without a delay.
    tolerate: i64 = 0,
};

pub fn params(given: *const konductor.Object, errors: *konductor.Errors) Params {
    var read = Params{};
    var members = given.iterator();
    while (members.next()) |member| {
        const name, const value = .{ member.key_ptr.*, member.value_ptr.* };
        if (std.mem.eql(u8, name, "base")) {
            read.base_ms = duration(name, value, errors);
        } else if (std.mem.eql(u8, name, "max")) {
            read.max_ms = duration(name, value, errors);
        } else if (std.mem.eql(u8, name, "tolerate")) {
            if (value == .integer and value.integer >= 0 and value.integer <= 8) {
                read.tolerate = value.integer;
            } else {
                errors.add(name, value, "is not a whole number from 0 to 8, as many holds as a lease remembers");
            }
        } else {
            errors.unknown(name, value, "base, max and tolerate");
        }
    }
    if (read.max_ms < read.base_ms) errors.say("max: it is shorter than base, the first delay");
    return read;
}

fn duration(name: []const u8, value: konductor.Value, errors: *konductor.Errors) i64 {
    if (value == .string) if (konductor.durationMs(value.string)) |ms| if (ms > 0) return ms;
    errors.add(name, value, "is not a duration above zero and up to 366 days; write one such as \"10s\"");
    // Something that is no error by itself.
    return if (name[0] == 'b') 1 else std.math.maxInt(i64);
}

pub fn decide(input: *const Input, with: *const Params) Output {
    if (konductor.standing(input)) |answer| return answer;
    var answer = Output{ .hold = konductor.ended(input) };
    var best: ?usize = null;
    for (input.requests, 0..) |request, index| {
        const delay = delayFor(input, request.holder, with);
        if (delay > 0) {
            answer.wakeInMs = @min(delay, answer.wakeInMs orelse delay);
        } else if (best == null or request.priority > input.requests[best.?].priority) {
            best = index;
        }
    }
    if (best) |index| {
        answer.grant = .{ .request = index, .ttlMs = konductor.ttl(input.requests[index].ttlMs, input.lease.ttlMs) };
        // Whoever is next is asked for again when this hold ends.
        answer.wakeInMs = null;
        answer.reason = "highest priority of those that need not wait after a crash, then first come";
    } else if (input.requests.len > 0) {
        answer.reason = "everybody who waits let a hold expire, and may try again later";
    }
    return answer;
}

/// For how many milliseconds this holder still has to wait; zero if it need not.
fn delayFor(input: *const Input, holder: []const u8, with: *const Params) i64 {
    var crashes: i64 = 0;
    var last: i64 = 0;
    // The hold that this answer ends is the newest of them.
    if (input.hold) |hold| if (std.mem.eql(u8, hold.holder, holder)) {
        crashes = 1;
        last = input.now;
    };
    for (input.history) |past| {
        if (!std.mem.eql(u8, past.holder, holder)) continue;
        if (!std.mem.eql(u8, past.how, "Expired")) break;
        if (crashes == 0) last = past.ended;
        crashes += 1;
    }
    if (crashes <= with.tolerate) return 0;
    const doublings: u6 = @intCast(@min(crashes - with.tolerate - 1, doublings_max));
    const delay = @min(with.base_ms *| (@as(i64, 1) << doublings), with.max_ms);
    return delay - konductor.since(last, input.now);
}
