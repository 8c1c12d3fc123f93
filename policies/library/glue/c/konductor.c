// The exports of the ABI, an allocator that never frees, and a reader and writer of JSON. See konductor.h.
#include "konductor.h"

#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))

// As deep as serde_json reads, which the host does; little enough for the stack of 64 KiB.
enum { DEPTH_MAX = 128 };
// The most errors that are told at once: a person repairs a few and asks again.
enum { ERRORS_MAX = 16 };
// The most bytes of a value that an error repeats; a longer one is recognised by its beginning.
enum { SHOWN_MAX = 40 };
enum { WASM_PAGE = 64 * 1024 };
// 366 days, as everywhere in the API. Longer is a typing error.
static const int64_t DURATION_MAX_MS = 366LL * 24 * 60 * 60 * 1000;

// ---- Memory

extern unsigned char __heap_base;
static uintptr_t next_free;

void give_up(const char *why) {
  (void)why;
  __builtin_trap();
}

// Where so many bytes may be; 0 if there is no room. A fresh memory is zero, and no byte is handed out twice.
static uintptr_t take(size_t size) {
  if (next_free == 0) next_free = (uintptr_t)&__heap_base;
  uintptr_t start = (next_free + 7) & ~(uintptr_t)7;
  if (start < next_free || size > UINTPTR_MAX - start) return 0;
  uintptr_t end = start + size;
  uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) * WASM_PAGE;
  if (end > have) {
    size_t pages = (end - have - 1) / WASM_PAGE + 1;
    if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) return 0;
  }
  next_free = end;
  return start;
}

void *room(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) give_up("more memory than there is");
  uintptr_t start = take(bytes);
  if (start == 0) give_up("out of memory");
  return (void *)start;
}

// clang makes calls of these two of loops and assignments.
void *memcpy(void *restrict to, const void *restrict from, size_t len) {
  unsigned char *t = to;
  const unsigned char *f = from;
  for (size_t i = 0; i < len; i++) t[i] = f[i];
  return to;
}
void *memset(void *to, int byte, size_t len) {
  unsigned char *t = to;
  for (size_t i = 0; i < len; i++) t[i] = (unsigned char)byte;
  return to;
}

bool same(text a, text b) {
  if (a.len != b.len) return false;
  for (size_t i = 0; i < a.len; i++)
    if (a.at[i] != b.at[i]) return false;
  return true;
}

// ---- Reading

typedef struct {
  const char *at, *end;
  int depth;
} reader;

static int peek(reader *r) {
  while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) r->at++;
  return r->at < r->end ? (unsigned char)*r->at : -1;
}

static bool word(reader *r, text word) {
  if ((size_t)(r->end - r->at) < word.len || !same((text){r->at, word.len}, word)) return false;
  r->at += word.len;
  return true;
}

static bool hex(reader *r, uint32_t *value) {
  *value = 0;
  for (int i = 0; i < 4; i++) {
    if (r->at == r->end) return false;
    char c = *r->at++;
    uint32_t digit;
    if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
    else if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a') + 10;
    else if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A') + 10;
    else return false;
    *value = *value << 4 | digit;
  }
  return true;
}

static size_t utf8(char *to, uint32_t c) {
  if (c < 0x80) {
    to[0] = (char)c;
    return 1;
  }
  if (c < 0x800) {
    to[0] = (char)(0xc0 | c >> 6);
    to[1] = (char)(0x80 | (c & 0x3f));
    return 2;
  }
  if (c < 0x10000) {
    to[0] = (char)(0xe0 | c >> 12);
    to[1] = (char)(0x80 | (c >> 6 & 0x3f));
    to[2] = (char)(0x80 | (c & 0x3f));
    return 3;
  }
  to[0] = (char)(0xf0 | c >> 18);
  to[1] = (char)(0x80 | (c >> 12 & 0x3f));
  to[2] = (char)(0x80 | (c >> 6 & 0x3f));
  to[3] = (char)(0x80 | (c & 0x3f));
  return 4;
}

// The character that an escape stands for, after its backslash.
static bool escaped(reader *r, char *to, size_t *len) {
  if (r->at == r->end) return false;
  uint32_t c;
  switch (*r->at++) {
    case '"': c = '"'; break;
    case '\\': c = '\\'; break;
    case '/': c = '/'; break;
    case 'b': c = '\b'; break;
    case 'f': c = '\f'; break;
    case 'n': c = '\n'; break;
    case 'r': c = '\r'; break;
    case 't': c = '\t'; break;
    case 'u':
      if (!hex(r, &c) || (c >= 0xdc00 && c < 0xe000)) return false;
      if (c >= 0xd800 && c < 0xdc00) {
        // A surrogate has meaning only with its other half.
        uint32_t low;
        if (!word(r, T("\\u")) || !hex(r, &low) || low < 0xdc00 || low >= 0xe000) return false;
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
      }
      break;
    default: return false;
  }
  *len += utf8(to + *len, c);
  return true;
}

// A text, from its opening quote on. Where it has no escape it stays where it is.
static bool read_text(reader *r, text *out) {
  const char *start = ++r->at;
  while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char)*r->at >= 0x20) r->at++;
  if (r->at == r->end) return false;
  size_t len = (size_t)(r->at - start);
  if (*r->at == '"') {
    r->at++;
    *out = (text){start, len};
    return true;
  }
  // An escape is never shorter than what it stands for, so the text fits where its JSON would.
  const char *close = r->at;
  while (close < r->end && *close != '"') close += *close == '\\' && r->end - close > 1 ? 2 : 1;
  char *to = room((size_t)(close - start), 1);
  memcpy(to, start, len);
  while (r->at < r->end) {
    unsigned char c = (unsigned char)*r->at++;
    if (c == '"') {
      *out = (text){to, len};
      return true;
    }
    if (c == '\\') {
      if (!escaped(r, to, &len)) return false;
    } else if (c < 0x20) {
      return false;
    } else {
      to[len++] = (char)c;
    }
  }
  return false;
}

static bool digits(reader *r) {
  const char *start = r->at;
  while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
  return r->at > start;
}

static bool read_number(reader *r, json *out) {
  bool negative = *r->at == '-';
  if (negative) r->at++;
  const char *start = r->at;
  if (!digits(r)) return false;
  const char *end = r->at;
  if (end - start > 1 && *start == '0') return false;
  bool fraction = false;
  if (r->at < r->end && *r->at == '.') {
    r->at++;
    fraction = true;
    if (!digits(r)) return false;
  }
  if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
    r->at++;
    fraction = true;
    if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
    if (!digits(r)) return false;
  }
  // 18 digits fit any integer.
  out->kind = fraction || end - start > 18 ? JSON_FRACTION : JSON_WHOLE;
  if (out->kind == JSON_WHOLE) {
    for (const char *at = start; at < end; at++) out->whole = out->whole * 10 + (*at - '0');
    if (negative) out->whole = -out->whole;
  }
  return true;
}

static bool read_value(reader *r, json *out);

static bool read_members(reader *r, json *out, bool object) {
  char close = object ? '}' : ']';
  if (r->depth++ == DEPTH_MAX) return false;
  r->at++;
  const json **link = &out->first;
  if (peek(r) == close) {
    r->at++;
    r->depth--;
    return true;
  }
  for (;;) {
    json *member = room(1, sizeof *member);
    if (object) {
      if (peek(r) != '"' || !read_text(r, &member->name) || peek(r) != ':') return false;
      r->at++;
    }
    if (!read_value(r, member)) return false;
    *link = member;
    link = &member->next;
    out->count++;
    int c = peek(r);
    if (c != ',' && c != close) return false;
    r->at++;
    if (c == close) {
      r->depth--;
      return true;
    }
  }
}

static bool read_value(reader *r, json *out) {
  switch (peek(r)) {
    case '{': out->kind = JSON_OBJECT; return read_members(r, out, true);
    case '[': out->kind = JSON_LIST; return read_members(r, out, false);
    case '"': out->kind = JSON_TEXT; return read_text(r, &out->text);
    case 't': out->kind = JSON_TRUE; return word(r, T("true"));
    case 'f': out->kind = JSON_FALSE; return word(r, T("false"));
    case 'n': out->kind = JSON_NULL; return word(r, T("null"));
    case -1: return false;
    default: return read_number(r, out);
  }
}

const json *json_read(text source) {
  reader r = {source.at, source.at + source.len, 0};
  json *value = room(1, sizeof *value);
  return read_value(&r, value) && peek(&r) == -1 ? value : NULL;
}

const json *json_member(const json *object, text name) {
  if (object == NULL || object->kind != JSON_OBJECT) return NULL;
  for (const json *member = object->first; member; member = member->next)
    if (same(member->name, name)) return member;
  return NULL;
}

int64_t json_whole(const json *object, text name, int64_t otherwise) {
  const json *member = json_member(object, name);
  return member && member->kind == JSON_WHOLE ? member->whole : otherwise;
}

bool json_true(const json *object, text name) {
  const json *member = json_member(object, name);
  return member && member->kind == JSON_TRUE;
}

text json_text(const json *object, text name) {
  const json *member = json_member(object, name);
  return member && member->kind == JSON_TEXT ? member->text : T("");
}

// ---- Writing

void put(writer *to, text what) {
  if (what.len > to->capacity - to->len) {
    size_t capacity = (to->len + what.len) * 2;
    char *grown = room(capacity, 1);
    memcpy(grown, to->at, to->len);
    to->at = grown;
    to->capacity = capacity;
  }
  memcpy(to->at + to->len, what.at, what.len);
  to->len += what.len;
}

void put_whole(writer *to, int64_t number) {
  char digits[20];
  size_t at = sizeof digits;
  // Below zero, because the lowest number has no positive twin.
  int64_t rest = number < 0 ? number : -number;
  do digits[--at] = (char)('0' - rest % 10);
  while ((rest /= 10) != 0);
  if (number < 0) put(to, T("-"));
  put(to, (text){digits + at, sizeof digits - at});
}

void put_quoted(writer *to, text what) {
  static const char hex_digits[] = "0123456789abcdef";
  put(to, T("\""));
  size_t plain = 0;
  for (size_t i = 0; i < what.len; i++) {
    unsigned char c = (unsigned char)what.at[i];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    put(to, (text){what.at + plain, i - plain});
    plain = i + 1;
    char escape[] = {'\\', 'u', '0', '0', hex_digits[c >> 4], hex_digits[c & 15]};
    char simple[] = {'\\', (char)c};
    put(to, c < 0x20 ? (text){escape, sizeof escape} : (text){simple, sizeof simple});
  }
  put(to, (text){what.at + plain, what.len - plain});
  put(to, T("\""));
}

text written(const writer *from) { return (text){from->at, from->len}; }

// ---- What policies share

int64_t duration_ms(text source) {
  if (same(source, T("0"))) return 0;
  int64_t total = 0;
  size_t i = 0;
  if (source.len == 0) return -1;
  while (i < source.len) {
    size_t start = i;
    int64_t number = 0;
    for (; i < source.len && source.at[i] >= '0' && source.at[i] <= '9'; i++)
      if (__builtin_mul_overflow(number, 10, &number) || __builtin_add_overflow(number, source.at[i] - '0', &number)) return -1;
    if (i == start || i == source.len) return -1;
    int64_t unit;
    char c = source.at[i++];
    if (c == 'm' && i < source.len && source.at[i] == 's') {
      unit = 1;
      i++;
    } else if (c == 's') unit = 1000;
    else if (c == 'm') unit = 60 * 1000;
    else if (c == 'h') unit = 60 * 60 * 1000;
    else if (c == 'd') unit = 24 * 60 * 60 * 1000;
    else return -1;
    if (__builtin_mul_overflow(number, unit, &number) || __builtin_add_overflow(total, number, &total)) return -1;
  }
  return total <= DURATION_MAX_MS ? total : -1;
}

// As much of a text as an error repeats, without half a character at its end.
static text shown(text whole) {
  size_t len = whole.len < SHOWN_MAX ? whole.len : SHOWN_MAX;
  while (len > 0 && len < whole.len && ((unsigned char)whole.at[len] & 0xc0) == 0x80) len--;
  return (text){whole.at, len};
}

static void put_value(writer *to, const json *value) {
  switch (value->kind) {
    case JSON_NULL: put(to, T("null")); break;
    case JSON_FALSE: put(to, T("false")); break;
    case JSON_TRUE: put(to, T("true")); break;
    case JSON_WHOLE: put_whole(to, value->whole); break;
    case JSON_FRACTION: put(to, T("this number")); break;
    case JSON_TEXT:
      put(to, T("\""));
      put(to, shown(value->text));
      put(to, T("\""));
      break;
    case JSON_LIST: put(to, T("a list")); break;
    case JSON_OBJECT: put(to, T("an object")); break;
  }
}

void put_error(errors *to, text name, const json *value, text problem) {
  if (to->count == ERRORS_MAX) return;
  if (to->count++ > 0) put(&to->to, T(","));
  writer sentence = {0};
  put(&sentence, name);
  put(&sentence, T(": "));
  put_value(&sentence, value);
  put(&sentence, T(" "));
  put(&sentence, problem);
  put_quoted(&to->to, written(&sentence));
}

void put_unknown(errors *to, const json *param, text known) {
  writer problem = {0};
  put(&problem, T("is not a param of this policy, which knows "));
  put(&problem, known);
  put_error(to, shown(param->name), param, written(&problem));
}

int64_t ttl_ms(int64_t asked, int64_t lease) {
  int64_t ttl = asked < lease ? asked : lease;
  return ttl > 1 ? ttl : 1;
}

int64_t since(int64_t moment, int64_t now) {
  int64_t passed;
  if (__builtin_sub_overflow(now, moment, &passed)) return moment < now ? INT64_MAX : 0;
  return passed > 0 ? passed : 0;
}

answer nothing(void) { return (answer){.granted = -1}; }

void deny(answer *to, size_t index, text reason) {
  if (to->deny.len > 0) put(&to->deny, T(","));
  put(&to->deny, T("{\"request\":"));
  put_whole(&to->deny, (int64_t)index);
  put(&to->deny, T(",\"reason\":"));
  put_quoted(&to->deny, reason);
  put(&to->deny, T("}"));
}

bool next_is_wanted(const json *input, answer *to) {
  const json *hold = json_member(input, T("hold")), *lease = json_member(input, T("lease"));
  if (hold == NULL || hold->kind != JSON_OBJECT) return true;
  const json *preemption = json_member(hold, T("preemption")), *requests = json_member(input, T("requests"));
  bool leaving = preemption && preemption->kind == JSON_OBJECT;
  bool wanted = json_true(hold, T("renewalRequested"));
  bool renewable = json_true(lease, T("renewable"));
  bool due = json_true(hold, T("due"));
  int64_t ttl = ttl_ms(json_whole(hold, T("ttlMs"), 0), json_whole(lease, T("ttlMs"), 0));
  if (due) {
    // Late by a moment: an end would help nobody.
    if (wanted && renewable && !leaving && (requests == NULL || requests->count == 0)) {
      to->renew = ttl;
      to->reason = T("renewed late: nobody else was waiting");
      return false;
    }
    to->hold = T("expire");
    return true;
  }
  if (!wanted) return false;
  if (leaving) {
    to->hold = T("keep");
    to->reason = T("not renewed: the holder is asked to leave");
  } else if (!renewable) {
    to->hold = T("keep");
    to->reason = T("the lease is not renewable (spec.renewable: false)");
  } else {
    to->renew = ttl;
    to->reason = T("renewed");
  }
  return false;
}

// ---- Exports

static int64_t give(text bytes) { return (int64_t)((uint64_t)(uintptr_t)bytes.at << 32 | (uint32_t)bytes.len); }

static void member(writer *to, text name) {
  put(to, to->len > 1 ? T(",\"") : T("\""));
  put(to, name);
  put(to, T("\":"));
}

static text written_answer(const answer *from) {
  writer to = {0};
  put(&to, T("{"));
  if (from->renew > 0) {
    member(&to, T("hold"));
    put(&to, T("{\"action\":\"renew\",\"ttlMs\":"));
    put_whole(&to, from->renew);
    put(&to, T("}"));
  } else if (from->hold.len > 0) {
    member(&to, T("hold"));
    put(&to, T("{\"action\":\""));
    put(&to, from->hold);
    put(&to, T("\"}"));
  }
  if (from->granted >= 0) {
    member(&to, T("grant"));
    put(&to, T("{\"request\":"));
    put_whole(&to, from->granted);
    put(&to, T(",\"ttlMs\":"));
    put_whole(&to, from->ttl);
    put(&to, T("}"));
  }
  if (from->deny.len > 0) {
    member(&to, T("deny"));
    put(&to, T("["));
    put(&to, written(&from->deny));
    put(&to, T("]"));
  }
  if (from->wake > 0) {
    member(&to, T("wakeInMs"));
    put_whole(&to, from->wake);
  }
  if (from->has_state) {
    member(&to, T("state"));
    put_quoted(&to, from->state);
  }
  if (from->reason.len > 0) {
    member(&to, T("reason"));
    put_quoted(&to, from->reason);
  }
  put(&to, T("}"));
  return written(&to);
}

EXPORT(konductor_policy_v1) void konductor_policy_v1(void) {}

EXPORT(konductor_alloc) void *konductor_alloc(size_t len) { return (void *)take(len); }

EXPORT(konductor_decide) int64_t konductor_decide(const char *at, size_t len) {
  const json *input = json_read((text){at, len});
  if (input == NULL || input->kind != JSON_OBJECT) give_up("the input is not the ABI's");
  answer decided = decide(input);
  return give(written_answer(&decided));
}

EXPORT(konductor_validate) int64_t konductor_validate(const char *at, size_t len) {
  const json *params = json_read((text){at, len});
  errors found = {0};
  if (params == NULL || params->kind != JSON_OBJECT) {
    put_quoted(&found.to, T("params: not a JSON object"));
  } else {
    validate(params, &found);
  }
  writer to = {0};
  put(&to, T("{\"errors\":["));
  put(&to, written(&found.to));
  put(&to, T("]}"));
  return give(written(&to));
}

EXPORT(konductor_describe) int64_t konductor_describe(void) {
  writer to = {0};
  put(&to, T("{\"name\":\"" KONDUCTOR_NAME "\",\"version\":\"" KONDUCTOR_VERSION "\",\"description\":"));
  put_quoted(&to, about);
  put(&to, T(",\"paramsSchema\":"));
  put(&to, (text){params_schema, params_schema_len});
  put(&to, T("}"));
  return give(written(&to));
}
