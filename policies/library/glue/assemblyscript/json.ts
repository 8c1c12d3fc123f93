// A reader and a writer of JSON over the module's memory.

export enum Kind { Null, False, True, Whole, Fraction, Text, List, Object }

// As deep as serde_json reads, which the host does.
const DEPTH_MAX = 128;

export class Json {
  text: string = ""; // of a text
  whole: i64 = 0; // of a whole number; one with a fraction, an exponent or too many digits is a fraction
  names: string[] = []; // of an object's members
  members: Json[] = []; // of an object or a list

  constructor(readonly kind: Kind) {}

  // The member of an object; the first where there are several, null where there is none.
  get(name: string): Json | null {
    const at = this.names.indexOf(name);
    return at < 0 ? null : this.members[at];
  }

  // What a member is, or the other value if it is absent or of another kind.
  wholeOf(name: string, otherwise: i64 = 0): i64 {
    const member = this.get(name);
    return member != null && member.kind == Kind.Whole ? member.whole : otherwise;
  }

  textOf(name: string): string {
    const member = this.get(name);
    return member != null && member.kind == Kind.Text ? member.text : "";
  }

  isTrue(name: string): bool {
    const member = this.get(name);
    return member != null && member.kind == Kind.True;
  }

  listOf(name: string): Json[] {
    const member = this.get(name);
    return member != null && member.kind == Kind.List ? member.members : [];
  }

  objectOf(name: string): Json | null {
    const member = this.get(name);
    return member != null && member.kind == Kind.Object ? member : null;
  }
}

// Reads a value; null if this is not JSON.
export function read(at: usize, len: usize): Json | null {
  const reader = new Reader(at, at + len);
  const value = reader.value();
  return value != null && reader.peek() < 0 ? value : null;
}

class Reader {
  depth: i32 = 0;

  constructor(public at: usize, readonly end: usize) {}

  // The next byte that is no white space, or -1. It stays where it is.
  peek(): i32 {
    while (this.at < this.end) {
      const c = load<u8>(this.at);
      if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) return c;
      this.at++;
    }
    return -1;
  }

  value(): Json | null {
    const c = this.peek();
    switch (c) {
      case 0x7b: return this.nested(Kind.Object, 0x7d); // { }
      case 0x5b: return this.nested(Kind.List, 0x5d); // [ ]
      case 0x22: { // "
        const text = this.text();
        if (text == null) return null;
        const value = new Json(Kind.Text);
        value.text = text;
        return value;
      }
      case 0x74: return this.word("true", Kind.True);
      case 0x66: return this.word("false", Kind.False);
      case 0x6e: return this.word("null", Kind.Null);
      case -1: return null;
      default: return this.number();
    }
  }

  private word(word: string, kind: Kind): Json | null {
    if (this.end - this.at < <usize>word.length) return null;
    for (let i = 0; i < word.length; i++) {
      if (<i32>load<u8>(this.at + i) != word.charCodeAt(i)) return null;
    }
    this.at += word.length;
    return new Json(kind);
  }

  private nested(kind: Kind, close: i32): Json | null {
    if (this.depth++ == DEPTH_MAX) return null;
    const value = new Json(kind);
    this.at++;
    if (this.peek() == close) {
      this.at++;
      this.depth--;
      return value;
    }
    while (true) {
      if (kind == Kind.Object) {
        if (this.peek() != 0x22) return null;
        const name = this.text();
        if (name == null || this.peek() != 0x3a) return null; // :
        value.names.push(name);
        this.at++;
      }
      const member = this.value();
      if (member == null) return null;
      value.members.push(member);
      const c = this.peek();
      if (c != 0x2c && c != close) return null; // ,
      this.at++;
      if (c == close) {
        this.depth--;
        return value;
      }
    }
  }

  // A text, from its opening quote on. The host has made sure that it is UTF-8.
  private text(): string | null {
    const start = ++this.at;
    let end = start;
    let escapes = false;
    while (true) {
      if (end >= this.end) return null;
      const c = load<u8>(end);
      if (c < 0x20) return null;
      if (c == 0x22) break;
      // What follows a backslash is no end.
      if (c == 0x5c) escapes = true;
      end += c == 0x5c ? 2 : 1;
    }
    this.at = end + 1;
    if (!escapes) return String.UTF8.decodeUnsafe(start, end - start);
    // An escape is never shorter than what it stands for.
    const plain = heap.alloc(end - start);
    const len = unescape(start, end, plain);
    return len < 0 ? null : String.UTF8.decodeUnsafe(plain, len);
  }

  private is(byte: u8): bool {
    return this.at < this.end && load<u8>(this.at) == byte;
  }

  private digits(): i32 {
    const start = this.at;
    while (this.at < this.end && load<u8>(this.at) >= 0x30 && load<u8>(this.at) <= 0x39) this.at++;
    return <i32>(this.at - start);
  }

  private number(): Json | null {
    const negative = this.is(0x2d); // -
    if (negative) this.at++;
    const start = this.at;
    const count = this.digits();
    if (count == 0 || (count > 1 && load<u8>(start) == 0x30)) return null;
    // 18 digits fit any integer.
    let whole = count <= 18;
    if (this.is(0x2e)) { // .
      this.at++;
      whole = false;
      if (this.digits() == 0) return null;
    }
    if (this.is(0x65) || this.is(0x45)) { // e, E
      this.at++;
      whole = false;
      if (this.is(0x2b) || this.is(0x2d)) this.at++;
      if (this.digits() == 0) return null;
    }
    if (!whole) return new Json(Kind.Fraction);
    const value = new Json(Kind.Whole);
    for (let i = 0; i < count; i++) value.whole = value.whole * 10 + <i64>(load<u8>(start + i) - 0x30);
    if (negative) value.whole = -value.whole;
    return value;
  }
}

// Writes what a text with escapes stands for, in UTF-8, to another place. Its length, or -1 if an escape is none.
function unescape(start: usize, end: usize, to: usize): i32 {
  let out = to;
  let at = start;
  while (at < end) {
    const c = load<u8>(at++);
    if (c < 0x20) return -1;
    if (c != 0x5c) {
      store<u8>(out++, c);
      continue;
    }
    let char: i32 = 0;
    switch (load<u8>(at++)) {
      case 0x22: char = 0x22; break;
      case 0x5c: char = 0x5c; break;
      case 0x2f: char = 0x2f; break;
      case 0x62: char = 0x08; break;
      case 0x66: char = 0x0c; break;
      case 0x6e: char = 0x0a; break;
      case 0x72: char = 0x0d; break;
      case 0x74: char = 0x09; break;
      case 0x75: { // u
        char = hex(at, end);
        at += 4;
        if (char < 0 || (char >= 0xdc00 && char < 0xe000)) return -1;
        if (char >= 0xd800 && char < 0xdc00) {
          // A surrogate has meaning only with its other half.
          if (at + 2 > end || load<u8>(at) != 0x5c || load<u8>(at + 1) != 0x75) return -1;
          const low = hex(at + 2, end);
          at += 6;
          if (low < 0xdc00 || low >= 0xe000) return -1;
          char = 0x10000 + ((char - 0xd800) << 10) + (low - 0xdc00);
        }
        break;
      }
      default: return -1;
    }
    out += utf8(char, out);
  }
  return <i32>(out - to);
}

// Four digits as a number, or -1.
function hex(at: usize, end: usize): i32 {
  if (at + 4 > end) return -1;
  let value = 0;
  for (let i = 0; i < 4; i++) {
    const c = <i32>load<u8>(at + i);
    let digit = 0;
    if (c >= 0x30 && c <= 0x39) digit = c - 0x30;
    else if (c >= 0x61 && c <= 0x66) digit = c - 0x61 + 10;
    else if (c >= 0x41 && c <= 0x46) digit = c - 0x41 + 10;
    else return -1;
    value = (value << 4) | digit;
  }
  return value;
}

// Writes a character and says how many bytes it has.
function utf8(char: i32, to: usize): i32 {
  if (char < 0x80) {
    store<u8>(to, char);
    return 1;
  }
  const len = char < 0x800 ? 2 : char < 0x10000 ? 3 : 4;
  store<u8>(to, ((0xf00 >> len) & 0xff) | (char >> (6 * (len - 1))));
  for (let i = 1; i < len; i++) store<u8>(to + i, 0x80 | ((char >> (6 * (len - 1 - i))) & 0x3f));
  return len;
}

// A text as JSON writes it.
export function quoted(text: string): string {
  let out = '"';
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c >= 0x20 && c != 0x22 && c != 0x5c) continue;
    out += text.substring(start, i);
    out += c < 0x20 ? "\\u00" + (c < 0x10 ? "0" : "1") + (c & 15).toString(16) : "\\" + String.fromCharCode(c);
    start = i + 1;
  }
  return out + text.substring(start) + '"';
}
