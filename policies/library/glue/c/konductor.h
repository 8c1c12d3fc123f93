// What a policy written in C needs around its rules: exports, memory, JSON, and the words that policies share.
//
// A policy defines the three functions at the end of this file. `konductor.c` does the rest. It uses no library, so the
// module imports nothing. Everything lives until the end of the call: an instance is used once.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Bytes in UTF-8, not ended by a zero: a text may have one in it.
typedef struct {
  const char *at;
  size_t len;
} text;

#define T(literal) ((text){(literal), sizeof(literal) - 1})

bool same(text a, text b);

// Gives up. The host counts it against the policy, and the lease's onFailure says what happens. The argument is for the
// reader of the code; in the module only the name of the function that gave up can be seen.
[[noreturn]] void give_up(const char *why);

// `count` things of `size` bytes, all zero. Gives up when there is no room.
void *room(size_t count, size_t size);

// ---- JSON, read

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_WHOLE, JSON_FRACTION, JSON_TEXT, JSON_LIST, JSON_OBJECT } json_kind;

typedef struct json json;
struct json {
  json_kind kind;
  text name;         // of a member of an object, without escapes
  text text;         // of a JSON_TEXT, without escapes
  int64_t whole;     // of a JSON_WHOLE; a number with a fraction, an exponent or too many digits is a JSON_FRACTION
  size_t count;      // of the members of a list or an object
  const json *first; // of them
  const json *next;  // the member after this one
};

// Reads a value; NULL if this is not JSON.
const json *json_read(text source);
// The member of an object, or NULL; the first where there are several. NULL has no members.
const json *json_member(const json *object, text name);

// What a member is, or the other value if it is absent or of another kind.
int64_t json_whole(const json *object, text name, int64_t otherwise);
bool json_true(const json *object, text name);
text json_text(const json *object, text name);

// ---- JSON and sentences, written

typedef struct {
  char *at;
  size_t len, capacity;
} writer;

void put(writer *to, text what);
void put_whole(writer *to, int64_t number);
// In quotes, with escapes.
void put_quoted(writer *to, text what);
text written(const writer *from);

// ---- What policies share

// A duration as a Lease writes it, in milliseconds, up to 366 days; negative if it is none.
int64_t duration_ms(text source);

// The sentence about a param: its name, the value as it was given, and what is wrong with it.
typedef struct {
  writer to;
  size_t count;
} errors;
void put_error(errors *to, text name, const json *value, text problem);
// The same for a param that the policy does not have.
void put_unknown(errors *to, const json *param, text known);

// What was asked for, never above the lease's, and never nothing.
int64_t ttl_ms(int64_t asked, int64_t lease);
// For how long a moment has passed; not at all if a clock stepped back behind it.
int64_t since(int64_t moment, int64_t now);

// An answer. Members that are not set are left out.
typedef struct {
  text hold;       // the members of the hold's object after `action`, such as `keep` or `expire`
  int64_t renew;   // above zero: the hold is renewed for so long
  int64_t granted; // the index of a request, or -1
  int64_t ttl;     // of the grant
  writer deny;     // the list's elements, with commas between
  int64_t wake;    // above zero: ask again in so long
  bool has_state;
  text state;
  text reason;
} answer;

answer nothing(void);
void deny(answer *to, size_t index, text reason);

// The usual frame around a policy's own rule, which says who is next: a renewal is allowed where the lease allows it, and
// a hold whose time is over ends in the answer that grants to the next. Returns whether the policy is to say who is next.
bool next_is_wanted(const json *input, answer *to);

// ---- What the policy defines

// In a sentence; the JSON Schema of its params, params.schema.json. Its name and version come from the build.
extern const text about;
extern const char params_schema[];
extern const size_t params_schema_len;
answer decide(const json *input);
void validate(const json *params, errors *to);
