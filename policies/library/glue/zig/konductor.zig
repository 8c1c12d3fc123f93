//! What a policy written in Zig needs around its rules: exports, memory, the types of the ABI, and the words that
//! policies share.
//!
//! A policy's root file defines `about`, `params_schema`, `Params`, `params` and `decide`, has
//! `pub const panic = konductor.panic`, and exports the policy with `comptime { konductor.exportPolicy(@This()); }`.
//! JSON is read and written by the standard library. Everything lives until the end of the call: an instance is used once.
const std = @import("std");
/// The name and the version of the policy, from the build.
const build = @import("build");

pub const Value = std.json.Value;
/// Where the maker of the JSON may write what he likes: it is looked at member by member.
pub const Object = std.json.ObjectMap;

/// A panic is a trap: there is nobody to tell more.
pub const panic = std.debug.no_panic;

/// The most errors that are told at once: a person repairs a few and asks again.
const errors_max = 16;
/// The most bytes of a value that an error repeats; a longer one is recognised by its beginning.
const shown_max = 40;
/// 366 days, as everywhere in the API. Longer is a typing error.
const duration_max_ms = 366 * 24 * 60 * 60 * 1000;

var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);

/// Memory; nothing is ever given back.
pub fn memory() std.mem.Allocator {
    return arena.allocator();
}

/// Gives up. The host counts it against the policy, and the lease's onFailure says what happens. The argument is for the
/// reader of the code; in the module only the name of the function that gave up can be seen.
pub noinline fn giveUp(_: []const u8) noreturn {
    @branchHint(.cold);
    @trap();
}

// ---- The ABI. What is missing reads as its default, and what is unknown is ignored.

pub const Input = struct {
    now: i64 = 0,
    lease: Lease = .{},
    params: Value = .null,
    hold: ?Hold = null,
    requests: []const Request = &.{},
    history: []const Past = &.{},
    state: []const u8 = "",
};

pub const Lease = struct {
    ttlMs: i64 = 0,
    renewable: bool = false,
};

pub const Hold = struct {
    holder: []const u8 = "",
    ttlMs: i64 = 0,
    token: i64 = 0,
    renewalRequested: bool = false,
    due: bool = false,
    preemption: ?struct {} = null,
};

pub const Request = struct {
    holder: []const u8 = "",
    priority: i64 = 0,
    ttlMs: i64 = 0,
    arrived: i64 = 0,
};

pub const Past = struct {
    holder: []const u8 = "",
    token: i64 = 0,
    ended: i64 = 0,
    how: []const u8 = "",
};

pub const Output = struct {
    hold: ?Action = null,
    grant: ?Grant = null,
    deny: ?[]const Denial = null,
    wakeInMs: ?i64 = null,
    state: ?[]const u8 = null,
    reason: ?[]const u8 = null,

    pub const Action = struct { action: enum { keep, renew, expire }, ttlMs: ?i64 = null };
    pub const Grant = struct { request: usize, ttlMs: i64 };
    pub const Denial = struct { request: usize, reason: []const u8 };
};

// ---- What policies share

/// Reads what the policy has kept as its state; null if it is not what it writes: it may be another policy's.
pub fn parse(comptime T: type, json: []const u8) ?T {
    const options = std.json.ParseOptions{ .ignore_unknown_fields = true, .duplicate_field_behavior = .use_first };
    return std.json.parseFromSliceLeaky(T, memory(), json, options) catch null;
}

/// A value as JSON, without the members that are null.
pub fn jsonOf(value: anytype) []const u8 {
    const json = std.json.Stringify.valueAlloc(memory(), value, .{ .emit_null_optional_fields = false });
    return json catch giveUp("out of memory");
}

/// The longest state, as the ABI says.
pub const state_max = 4096;

/// What was asked for, never above the lease's, and never nothing.
pub fn ttl(asked: i64, lease: i64) i64 {
    return @max(@min(asked, lease), 1);
}

/// For how long a moment has passed; not at all if a clock stepped back behind it.
pub fn since(moment: i64, now: i64) i64 {
    return @max(now -| moment, 0);
}

/// The usual frame around a policy's own rule, which says who is next: a renewal is allowed where the lease allows it, and
/// a hold whose time is over ends in the answer that grants to the next. Null: the policy is to say who is next.
pub fn standing(input: *const Input) ?Output {
    const hold = input.hold orelse return null;
    const renewal = Output.Action{ .action = .renew, .ttlMs = ttl(hold.ttlMs, input.lease.ttlMs) };
    if (hold.due) {
        // Late by a moment: an end would help nobody.
        const late = hold.renewalRequested and input.lease.renewable and hold.preemption == null;
        if (!late or input.requests.len > 0) return null;
        return .{ .hold = renewal, .reason = "renewed late: nobody else was waiting" };
    }
    if (!hold.renewalRequested) return .{};
    if (hold.preemption != null) return kept("not renewed: the holder is asked to leave");
    if (!input.lease.renewable) return kept("the lease is not renewable (spec.renewable: false)");
    return .{ .hold = renewal, .reason = "renewed" };
}

/// The hold stays as it is, and a renewal that was asked for is refused.
pub fn kept(reason: []const u8) Output {
    return .{ .hold = .{ .action = .keep }, .reason = reason };
}

/// What becomes of the hold where the policy says who is next: nobody holds, or the hold's time is over.
pub fn ended(input: *const Input) ?Output.Action {
    return if (input.hold == null) null else .{ .action = .expire };
}

/// A text put together of others.
pub fn print(comptime format: []const u8, args: anytype) []const u8 {
    return std.fmt.allocPrint(memory(), format, args) catch giveUp("out of memory");
}

/// A duration as a Lease writes it, in milliseconds, up to 366 days; null if it is none.
pub fn durationMs(text: []const u8) ?i64 {
    if (std.mem.eql(u8, text, "0")) return 0;
    if (text.len == 0) return null;
    var total: i64 = 0;
    var at: usize = 0;
    while (at < text.len) {
        const start = at;
        while (at < text.len and std.ascii.isDigit(text[at])) at += 1;
        // Only digits: parseInt would take a sign and underscores too.
        const number = std.fmt.parseInt(i64, text[start..at], 10) catch return null;
        const rest = text[at..];
        const unit: i64, const len: usize = if (std.mem.startsWith(u8, rest, "ms"))
            .{ 1, 2 }
        else if (rest.len == 0)
            return null
        else switch (rest[0]) {
            's' => .{ 1000, 1 },
            'm' => .{ 60 * 1000, 1 },
            'h' => .{ 60 * 60 * 1000, 1 },
            'd' => .{ 24 * 60 * 60 * 1000, 1 },
            else => return null,
        };
        at += len;
        total +|= number *| unit;
    }
    return if (total <= duration_max_ms) total else null;
}

/// What is wrong with the params.
pub const Errors = struct {
    list: std.ArrayListUnmanaged([]const u8) = .empty,

    /// `name: value problem`, as all policies say it.
    pub fn add(self: *Errors, name: []const u8, value: Value, problem: []const u8) void {
        self.say(print("{s}: {s} {s}", .{ shown(name), described(value), problem }));
    }

    /// The same for a param that the policy does not have.
    pub fn unknown(self: *Errors, name: []const u8, value: Value, comptime known: []const u8) void {
        self.add(name, value, "is not a param of this policy, which knows " ++ known);
    }

    /// A whole sentence.
    pub fn say(self: *Errors, sentence: []const u8) void {
        if (self.list.items.len == errors_max) return;
        self.list.append(memory(), sentence) catch giveUp("out of memory");
    }

    fn described(value: Value) []const u8 {
        return switch (value) {
            .null => "null",
            .bool => |flag| if (flag) "true" else "false",
            .integer => |number| print("{d}", .{number}),
            .float, .number_string => "this number",
            .string => |text| print("\"{s}\"", .{shown(text)}),
            .array => "a list",
            .object => "an object",
        };
    }
};

/// As much of a text as an error repeats, without half a character at its end.
fn shown(text: []const u8) []const u8 {
    var len = @min(text.len, shown_max);
    while (len > 0 and len < text.len and text[len] & 0xc0 == 0x80) len -= 1;
    return text[0..len];
}

// ---- Exports

fn read(comptime T: type, json: []const u8) T {
    return parse(T, json) orelse giveUp("the input is not the ABI's");
}

fn give(bytes: []const u8) i64 {
    return @bitCast(@as(u64, @intFromPtr(bytes.ptr)) << 32 | bytes.len);
}

fn write(value: anytype) i64 {
    return give(jsonOf(value));
}

/// Exports a policy.
pub fn exportPolicy(comptime policy: type) void {
    const exports = struct {
        fn marker() callconv(.c) void {}

        fn alloc(len: usize) callconv(.c) usize {
            // An allocation of nothing would be nowhere.
            const room = memory().alloc(u8, @max(len, 1)) catch return 0;
            return @intFromPtr(room.ptr);
        }

        fn decide(ptr: [*]const u8, len: usize) callconv(.c) i64 {
            const input = read(Input, ptr[0..len]);
            var errors = Errors{};
            const params: policy.Params = if (input.params == .object) policy.params(&input.params.object, &errors) else policy.params(&Object.init(memory()), &errors);
            if (errors.list.items.len > 0) giveUp("the params are refused by konductor_validate");
            return write(policy.decide(&input, &params));
        }

        fn validate(ptr: [*]const u8, len: usize) callconv(.c) i64 {
            var errors = Errors{};
            const value = read(Value, ptr[0..len]);
            if (value == .object) _ = policy.params(&value.object, &errors) else errors.say("params: not a JSON object");
            return write(.{ .errors = errors.list.items });
        }

        fn describe() callconv(.c) i64 {
            const sentence = comptime blk: {
                std.debug.assert(std.mem.indexOfAny(u8, policy.about, "\"\\") == null);
                break :blk policy.about;
            };
            return give("{\"name\":\"" ++ build.name ++ "\",\"version\":\"" ++ build.version ++ "\",\"description\":\"" ++ sentence ++ "\",\"paramsSchema\":" ++ policy.params_schema ++ "}");
        }
    };
    @export(&exports.marker, .{ .name = "konductor_policy_v1" });
    @export(&exports.alloc, .{ .name = "konductor_alloc" });
    @export(&exports.decide, .{ .name = "konductor_decide" });
    @export(&exports.validate, .{ .name = "konductor_validate" });
    @export(&exports.describe, .{ .name = "konductor_describe" });
}
