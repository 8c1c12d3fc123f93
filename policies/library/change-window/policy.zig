//! Nothing is granted outside of a calendar's windows, and no hold goes on past the end of one.
//!
//! README.md beside this file says what the params mean.
const std = @import("std");
const konductor = @import("konductor");
const Input = konductor.Input;
const Output = konductor.Output;

pub const panic = konductor.panic;
pub const about = "Nothing is granted outside of a calendar's windows, and no hold goes on past the end of one.";
pub const params_schema = @embedFile("params.schema.json");

comptime {
    konductor.exportPolicy(@This());
}

/// Two for each day of a week, and two to spare. Each is looked at for each of the next eight days.
const windows_max = 16;
/// As far as the clocks of the world are apart, and a day to spare.
const offset_max = 24 * 60;
const minute_ms = 60 * 1000;
const day_ms = 24 * 60 * minute_ms;
/// The latest that the host lets itself be woken; it then asks again.
const wake_max_ms = day_ms;

const week = [_][]const u8{ "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" };

const Window = struct {
    days: [7]bool = @splat(true),
    /// Minutes since midnight. A window that does not end after it begins ends on the next day.
    from: i64 = 0,
    to: i64 = 24 * 60,

    fn minutes(self: Window) i64 {
        return if (self.to > self.from) self.to - self.from else self.to - self.from + 24 * 60;
    }
};

pub const Params = struct {
    windows: []const Window = &.{},
    offset_ms: i64 = 0,
    at_least_ms: i64 = 0,
    deny: bool = false,

    /// When the window that begins on this day opens, in milliseconds since the epoch; null if it does not on this day.
    fn opens(self: *const Params, window: Window, day: i64) ?i64 {
        // 1970-01-01 was a Thursday.
        if (!window.days[@intCast(@mod(day + 3, 7))]) return null;
        return day * day_ms + window.from * minute_ms - self.offset_ms;
    }

    fn dayOf(self: *const Params, moment: i64) i64 {
        return @divFloor(moment + self.offset_ms, day_ms);
    }

    /// When the window closes that is open at this moment; null if none is. Windows that overlap or touch are one. What
    /// is open for more than a week is open for ever, and closes as late as an integer can say.
    fn closes(self: *const Params, moment: i64) ?i64 {
        var end = moment;
        while (end - moment <= 8 * day_ms) {
            const before = end;
            const today = self.dayOf(end);
            for (self.windows) |window| {
                for ([_]i64{ today - 1, today }) |day| {
                    const open = self.opens(window, day) orelse continue;
                    const close = open + window.minutes() * minute_ms;
                    if (open <= before and before < close) end = @max(end, close);
                }
            }
            if (end == before) return if (end == moment) null else end;
        }
        return std.math.maxInt(i64);
    }

    /// When the next window opens in which there is time enough for a grant; null if that is not within eight days.
    fn nextOpening(self: *const Params, now: i64) ?i64 {
        var soonest: ?i64 = null;
        for (self.windows) |window| {
            var day = self.dayOf(now);
            const last = day + 8;
            while (day <= last) : (day += 1) {
                const open = self.opens(window, day) orelse continue;
                if (open <= now or open >= soonest orelse std.math.maxInt(i64)) continue;
                const close = self.closes(open) orelse continue;
                if (close -| open >= self.at_least_ms) soonest = open;
            }
        }
        return soonest;
    }
};

pub fn params(given: *const konductor.Object, errors: *konductor.Errors) Params {
    var read = Params{};
    var at_least: ?konductor.Value = null;
    var members = given.iterator();
    while (members.next()) |member| {
        const name, const value = .{ member.key_ptr.*, member.value_ptr.* };
        if (std.mem.eql(u8, name, "windows")) {
            read.windows = windowsOf(name, value, errors);
        } else if (std.mem.eql(u8, name, "utcOffset")) {
            if (value == .integer and value.integer >= -offset_max and value.integer <= offset_max) {
                read.offset_ms = value.integer * minute_ms;
            } else {
                errors.add(name, value, "is not a whole number of minutes from -1440 to 1440, such as 60 for one hour east");
            }
        } else if (std.mem.eql(u8, name, "atLeast")) {
            at_least = value;
            const ms = if (value == .string) konductor.durationMs(value.string) else null;
            read.at_least_ms = ms orelse 0;
            if (ms == null) errors.add(name, value, "is not a duration up to 366 days; write one such as \"10m\"");
        } else if (std.mem.eql(u8, name, "outside")) {
            read.deny = value == .string and std.mem.eql(u8, value.string, "Deny");
            const wait = value == .string and std.mem.eql(u8, value.string, "Wait");
            if (!read.deny and !wait) errors.add(name, value, "is neither Wait nor Deny");
        } else {
            errors.unknown(name, value, "windows, utcOffset, atLeast and outside");
        }
    }
    if (given.get("windows") == null) {
        errors.say("windows: there are none, so nothing would ever be granted; write at least one, such as {\"days\": [\"Sat\"], \"from\": \"22:00\", \"to\": \"04:00\"}");
    } else if (errors.list.items.len == 0) {
        var longest: i64 = 0;
        for (read.windows) |window| longest = @max(longest, window.minutes() * minute_ms);
        if (read.at_least_ms > longest)
            errors.add("atLeast", at_least.?, "is longer than every window, so nothing would ever be granted");
    }
    return read;
}

fn windowsOf(name: []const u8, value: konductor.Value, errors: *konductor.Errors) []const Window {
    const list = if (value == .array) value.array.items else {
        errors.add(name, value, "is not a list of windows");
        return &.{};
    };
    if (list.len == 0 or list.len > windows_max) {
        errors.say(konductor.print("windows: there are {d}; write 1 to {d}", .{ list.len, windows_max }));
        return &.{};
    }
    const windows = konductor.memory().alloc(Window, list.len) catch konductor.giveUp("out of memory");
    for (list, windows, 0..) |one, *window, index| window.* = windowOf(one, index, errors);
    return windows;
}

fn windowOf(value: konductor.Value, index: usize, errors: *konductor.Errors) Window {
    var window = Window{};
    const place = konductor.print("windows[{d}]", .{index});
    if (value != .object) {
        errors.add(place, value, "is not an object with days, from and to");
        return window;
    }
    var members = value.object.iterator();
    while (members.next()) |member| {
        const known, const given = .{ member.key_ptr.*, member.value_ptr.* };
        const name = konductor.print("{s}.{s}", .{ place, known });
        if (std.mem.eql(u8, known, "days")) {
            window.days = daysOf(name, given, errors);
        } else if (std.mem.eql(u8, known, "from")) {
            // A window that begins at 24:00 begins at 00:00 of the day after; saying so is clearer.
            window.from = timeOf(name, given, 24 * 60 - 1, errors);
        } else if (std.mem.eql(u8, known, "to")) {
            window.to = timeOf(name, given, 24 * 60, errors);
        } else {
            errors.add(name, given, "is not a member of a window, which has days, from and to");
        }
    }
    return window;
}

fn daysOf(name: []const u8, value: konductor.Value, errors: *konductor.Errors) [7]bool {
    var days: [7]bool = @splat(false);
    if (value != .array or value.array.items.len == 0) {
        errors.add(name, value, "is not a list of days such as [\"Mon\", \"Tue\"]");
        return days;
    }
    for (value.array.items) |day| {
        const known = if (day == .string) for (week, 0..) |one, index| {
            if (std.mem.eql(u8, one, day.string)) break index;
        } else null else null;
        if (known) |index| days[index] = true else errors.add(name, day, "is none of Mon, Tue, Wed, Thu, Fri, Sat and Sun");
    }
    return days;
}

/// A time of the day such as 22:30, in minutes since midnight.
fn timeOf(name: []const u8, value: konductor.Value, most: i64, errors: *konductor.Errors) i64 {
    if (value == .string) {
        const text = value.string;
        if (text.len == 5 and text[2] == ':') {
            const hours = twoDigits(text[0..2]);
            const minutes = twoDigits(text[3..5]);
            if (hours != null and minutes != null and minutes.? < 60 and hours.? * 60 + minutes.? <= most)
                return hours.? * 60 + minutes.?;
        }
    }
    errors.add(name, value, if (most == 24 * 60) "is not a time from 00:00 to 24:00" else "is not a time from 00:00 to 23:59");
    return 0;
}

fn twoDigits(text: *const [2]u8) ?i64 {
    if (!std.ascii.isDigit(text[0]) or !std.ascii.isDigit(text[1])) return null;
    return @as(i64, text[0] - '0') * 10 + (text[1] - '0');
}

pub fn decide(input: *const Input, with: *const Params) Output {
    const left = if (with.closes(input.now)) |end| end -| input.now else 0;
    var answer = konductor.standing(input) orelse next(input, with, left);
    if (answer.hold) |*hold| if (hold.action == .renew) {
        if (left > 0) {
            hold.ttlMs = @min(hold.ttlMs.?, left);
        } else if (input.hold.?.due) {
            answer = next(input, with, left);
        } else {
            answer = konductor.kept("not renewed: the change window has closed");
        }
    };
    if (with.deny and answer.grant == null) {
        if (left < @max(with.at_least_ms, 1)) {
            answer.deny = denied(input, with);
            answer.wakeInMs = null;
        } else if (input.requests.len > 0) {
            // They wait for the holder, and are denied when the window closes.
            answer.wakeInMs = @min(left -| with.at_least_ms +| 1, wake_max_ms);
        }
    }
    return answer;
}

/// Who is next, where nobody holds the lease any more.
fn next(input: *const Input, with: *const Params, left: i64) Output {
    var answer = Output{ .hold = konductor.ended(input) };
    if (input.requests.len == 0) return answer;
    if (left < @max(with.at_least_ms, 1)) {
        answer.reason = outside(input, with);
        if (with.nextOpening(input.now)) |open| answer.wakeInMs = @min(open - input.now, wake_max_ms);
        return answer;
    }
    var best: usize = 0;
    for (input.requests, 0..) |request, index| {
        if (request.priority > input.requests[best].priority) best = index;
    }
    const ttl = konductor.ttl(input.requests[best].ttlMs, input.lease.ttlMs);
    answer.grant = .{ .request = best, .ttlMs = @min(ttl, left) };
    answer.reason = "in the change window: highest priority, then first come";
    return answer;
}

fn denied(input: *const Input, with: *const Params) ?[]const Output.Denial {
    if (input.requests.len == 0) return null;
    const deny = konductor.memory().alloc(Output.Denial, input.requests.len) catch konductor.giveUp("out of memory");
    const reason = outside(input, with);
    for (deny, 0..) |*denial, index| denial.* = .{ .request = index, .reason = reason };
    return deny;
}

fn outside(input: *const Input, with: *const Params) []const u8 {
    const open = with.nextOpening(input.now) orelse return "outside the change window";
    // Years before 1970 and after 9999 have other clocks than ours.
    if (open < 0 or open > 253_402_300_799_000) return "outside the change window";
    const at = std.time.epoch.EpochSeconds{ .secs = @intCast(@divFloor(open, 1000)) };
    const day = at.getEpochDay().calculateYearDay();
    const month = day.calculateMonthDay();
    const time = at.getDaySeconds();
    return konductor.print("outside the change window; the next one opens at {d:0>4}-{d:0>2}-{d:0>2}T{d:0>2}:{d:0>2}Z", .{
        day.year,
        month.month.numeric(),
        month.day_index + 1,
        time.getHoursIntoDay(),
        time.getMinutesIntoHour(),
    });
}
