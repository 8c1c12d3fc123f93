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

/// Above it a delay of a millisecond is longer than 366 days; more would only be a shift too far.
const doublings_max = 36;

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
            if (value == .integer and value.integer >= 0 and value.integer <= 100) {
                read.tolerate = value.integer;
            } else {
                errors.add(name, value, "is not a whole number from 0 to 100");
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

/// A holder, and how many of its holds in a row have expired.
const Row = struct {
    holder: []const u8,
    crashes: i64,
    /// When the last of them did.
    last: i64,
};

/// What is kept between two questions. The history alone has 8 holds, those of holders that work among them.
const State = struct {
    /// The token of the last hold that is counted.
    seen: i64 = 0,
    /// The last one to crash is the last.
    rows: []const Row = &.{},
};

/// The state that was kept, with the holds that have ended since.
const Rows = struct {
    seen: i64,
    list: std.ArrayListUnmanaged(Row) = .empty,

    fn of(input: *const Input) Rows {
        const kept: State = konductor.parse(State, input.state) orelse .{};
        var rows = Rows{ .seen = kept.seen };
        rows.list.appendSlice(konductor.memory(), kept.rows) catch konductor.giveUp("out of memory");
        var left = input.history.len;
        while (left > 0) {
            left -= 1;
            const past = input.history[left];
            if (past.token > rows.seen) rows.count(past.holder, past.how, past.ended, past.token);
        }
        // The hold that this answer ends is in no history yet.
        if (input.hold) |hold| rows.count(hold.holder, "Expired", input.now, hold.token);
        return rows;
    }

    fn count(self: *Rows, holder: []const u8, how: []const u8, ended: i64, token: i64) void {
        self.seen = @max(self.seen, token);
        // It came again while it held: that says neither that it crashed nor that it works.
        if (std.mem.eql(u8, how, "Superseded")) return;
        const crashed = std.mem.eql(u8, how, "Expired");
        const before = if (self.find(holder)) |at| self.list.orderedRemove(at).crashes else 0;
        if (!crashed) return;
        const row = Row{ .holder = holder, .crashes = before +| 1, .last = ended };
        self.list.append(konductor.memory(), row) catch konductor.giveUp("out of memory");
    }

    fn find(self: *const Rows, holder: []const u8) ?usize {
        for (self.list.items, 0..) |row, at| if (std.mem.eql(u8, row.holder, holder)) return at;
        return null;
    }

    /// As JSON. Where all do not fit, those that crashed last.
    fn written(self: *const Rows) []const u8 {
        var rows: []const Row = self.list.items;
        while (true) : (rows = rows[1..]) {
            const json = konductor.jsonOf(State{ .seen = self.seen, .rows = rows });
            if (json.len <= konductor.state_max) return json;
        }
    }

    /// For how many milliseconds this holder still has to wait; zero or less if it need not.
    fn delay(self: *const Rows, holder: []const u8, now: i64, with: *const Params) i64 {
        const row = self.list.items[self.find(holder) orelse return 0];
        if (row.crashes <= with.tolerate) return 0;
        const doublings: u6 = @intCast(@min(row.crashes - with.tolerate - 1, doublings_max));
        const whole = @min(with.base_ms *| (@as(i64, 1) << doublings), with.max_ms);
        return whole - konductor.since(row.last, now);
    }
};

pub fn decide(input: *const Input, with: *const Params) Output {
    if (konductor.standing(input)) |answer| return answer;
    const rows = Rows.of(input);
    var answer = Output{ .hold = konductor.ended(input) };
    var best: ?usize = null;
    for (input.requests, 0..) |request, index| {
        const delay = rows.delay(request.holder, input.now, with);
        if (delay > 0) {
            answer.wakeInMs = @min(delay, answer.wakeInMs orelse delay);
        } else if (best == null or request.priority > input.requests[best.?].priority) {
            best = index;
        }
    }
    if (best) |index| {
        answer.grant = .{ .request = index, .ttlMs = konductor.ttl(input.requests[index].ttlMs, input.lease.ttlMs) };
        // The others are asked for again when this hold ends.
        answer.wakeInMs = null;
        answer.reason = "highest priority of those that need not wait after a crash, then first come";
    } else if (input.requests.len > 0) {
        answer.reason = "everybody who waits let a hold expire, and may try again later";
    }
    if (answer.grant != null or answer.hold != null) answer.state = rows.written();
    return answer;
}
