// At most so many holds for a group in a window of time; until then the others go first.
//
// A group is what a holder's name begins with, up to a separator, or the value of a label. The history that a policy is
// shown has names but no labels, so for labels the policy keeps a list of its last grants. README.md beside this file
// says what the params mean.
#include "konductor.h"

// How many holds the host remembers, and this policy with it. So no quota can be larger.
enum { HOLDS_MAX = 8 };
// The longest state, as the ABI says.
enum { STATE_MAX = 4096 };

const text about = T("At most so many holds for a group in a window of time; until then the others go first.");
const char params_schema[] = {
#embed "params.schema.json"
};
const size_t params_schema_len = sizeof params_schema;

typedef struct {
  text label, separator;
  int64_t holds, window_ms;
  bool deny;
} quota;

static const quota DEFAULTS = {.separator = T("-"), .holds = 2, .window_ms = 60 * 60 * 1000};

// Reads the params; what is wrong with them goes to `found`.
static quota params_of(const json *params, errors *found) {
  quota q = DEFAULTS;
  const json *label = NULL, *separator = NULL;
  for (const json *param = params ? params->first : NULL; param; param = param->next) {
    if (same(param->name, T("label"))) {
      label = param;
      q.label = param->text;
      if (param->kind != JSON_TEXT || param->text.len == 0)
        put_error(found, param->name, param, T("is not the name of a label"));
    } else if (same(param->name, T("separator"))) {
      separator = param;
      q.separator = param->text;
      if (param->kind != JSON_TEXT || param->text.len == 0)
        put_error(found, param->name, param, T("is not a text that separates; write one such as \"-\""));
    } else if (same(param->name, T("holds"))) {
      q.holds = param->whole;
      if (param->kind != JSON_WHOLE || param->whole < 1 || param->whole > HOLDS_MAX)
        put_error(found, param->name, param, T("is not a whole number from 1 to 8, as many holds as a lease remembers"));
    } else if (same(param->name, T("window"))) {
      q.window_ms = param->kind == JSON_TEXT ? duration_ms(param->text) : -1;
      if (q.window_ms <= 0)
        put_error(found, param->name, param, T("is not a duration above zero and up to 366 days; write one such as \"1h\""));
    } else if (same(param->name, T("overQuota"))) {
      q.deny = param->kind == JSON_TEXT && same(param->text, T("Deny"));
      if (!q.deny && !(param->kind == JSON_TEXT && same(param->text, T("Wait"))))
        put_error(found, param->name, param, T("is neither Wait nor Deny"));
    } else {
      put_unknown(found, param, T("label, separator, holds, window and overQuota"));
    }
  }
  if (label && separator)
    put_error(found, separator->name, separator, T("cannot be used together with label: a group is one or the other"));
  return q;
}

void validate(const json *params, errors *found) { params_of(params, found); }

// A hold that counts: whose it was, and since when.
typedef struct {
  text group;
  int64_t since;
} used;

typedef struct {
  used at[HOLDS_MAX + 1]; // the newest first; one more for a hold that this answer ends
  size_t count;
} uses;

static void add(uses *to, text group, int64_t since) {
  if (to->count < sizeof to->at / sizeof *to->at) to->at[to->count++] = (used){group, since};
}

// What a name begins with, up to the separator; all of it where there is none.
static text beginning(text name, text separator) {
  for (size_t i = 0; i + separator.len <= name.len; i++)
    if (same((text){name.at + i, separator.len}, separator)) return (text){name.at, i};
  return name;
}

static text group_of(const json *request, const quota *q) {
  if (q->label.len > 0) return json_text(json_member(request, T("labels")), q->label);
  return beginning(json_text(request, T("holder")), q->separator);
}

// The last holds: by name from the history, by label from the state. A state that is not ours counts as none.
static uses uses_of(const json *input, const quota *q) {
  uses found = {0};
  if (q->label.len > 0) {
    const json *grants = json_member(json_read(json_text(input, T("state"))), T("grants"));
    if (grants == NULL || grants->kind != JSON_LIST) return found;
    for (const json *grant = grants->first; grant; grant = grant->next)
      add(&found, json_text(grant, T("group")), json_whole(grant, T("at"), 0));
    return found;
  }
  const json *hold = json_member(input, T("hold")), *history = json_member(input, T("history"));
  if (hold && hold->kind == JSON_OBJECT)
    add(&found, beginning(json_text(hold, T("holder")), q->separator), json_whole(hold, T("acquired"), 0));
  for (const json *past = history ? history->first : NULL; past; past = past->next) {
    // The same holder came again and went on.
    if (same(json_text(past, T("how")), T("Superseded"))) continue;
    add(&found, beginning(json_text(past, T("holder")), q->separator), json_whole(past, T("acquired"), 0));
  }
  return found;
}

// In how many milliseconds a group may have another hold; 0: now.
static int64_t free_in(const uses *uses, text group, int64_t now, const quota *q) {
  int64_t counted = 0;
  for (size_t i = 0; i < uses->count; i++) {
    int64_t ago = since(uses->at[i].since, now);
    if (!same(uses->at[i].group, group) || ago >= q->window_ms) continue;
    // The newest are first, so this one has to leave the window before there is room.
    if (++counted == q->holds) return q->window_ms - ago;
  }
  return 0;
}

static text over_quota(text group, const quota *q) {
  writer reason = {0};
  put(&reason, T("over quota: the group \""));
  put(&reason, group);
  put(&reason, T("\" has had its "));
  put_whole(&reason, q->holds);
  put(&reason, q->holds == 1 ? T(" hold in the last ") : T(" holds in the last "));
  put_whole(&reason, q->window_ms / 1000);
  put(&reason, T(" s"));
  return written(&reason);
}

// The list of grants with this one, the newest first, as many as count and fit.
static text remembered(const uses *uses, text group, int64_t now) {
  writer to = {0};
  put(&to, T("{\"grants\":["));
  for (size_t i = 0; i <= uses->count && i < HOLDS_MAX; i++) {
    used next = i == 0 ? (used){group, now} : uses->at[i - 1];
    writer entry = {0};
    put(&entry, i == 0 ? T("{\"group\":") : T(",{\"group\":"));
    put_quoted(&entry, next.group);
    put(&entry, T(",\"at\":"));
    put_whole(&entry, next.since);
    put(&entry, T("}"));
    if (to.len + entry.len + 2 > STATE_MAX) break;
    put(&to, written(&entry));
  }
  put(&to, T("]}"));
  return written(&to);
}

answer decide(const json *input) {
  errors found = {0};
  quota q = params_of(json_member(input, T("params")), &found);
  if (found.count > 0) give_up("the params are refused by konductor_validate");

  answer out = nothing();
  bool wanted = next_is_wanted(input, &out);
  const json *requests = json_member(input, T("requests")), *lease = json_member(input, T("lease"));
  if (requests == NULL || (!wanted && !q.deny)) return out;

  int64_t now = json_whole(input, T("now"), 0);
  uses used_up = uses_of(input, &q);
  const json *next = NULL;
  int64_t wake = 0;
  size_t index = 0, waiting = 0, denied = 0;
  for (const json *request = requests->first; request; request = request->next, index++) {
    text group = group_of(request, &q);
    int64_t wait = free_in(&used_up, group, now, &q);
    if (wait > 0 && q.deny) {
      // An answer has 64 KiB at most, and a reason up to 400 bytes: those that are left are denied in the next one.
      if (denied++ < 128) deny(&out, index, over_quota(group, &q));
    } else if (wait > 0) {
      waiting++;
      if (wake == 0 || wait < wake) wake = wait;
    } else if (next == NULL || json_whole(request, T("priority"), 0) > json_whole(next, T("priority"), 0)) {
      next = request;
      out.granted = (int64_t)index;
    }
  }
  if (!wanted) {
    out.granted = -1;
    return out;
  }
  if (next == NULL) {
    out.wake = wake;
    if (waiting > 0) out.reason = T("everybody who waits is over quota");
    return out;
  }
  out.ttl = ttl_ms(json_whole(next, T("ttlMs"), 0), json_whole(lease, T("ttlMs"), 0));
  out.reason = T("within its quota: highest priority, then first come");
  if (q.label.len > 0) {
    out.has_state = true;
    out.state = remembered(&used_up, group_of(next, &q), now);
  }
  return out;
}
