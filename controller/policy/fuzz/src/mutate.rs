//! A real module with a little of it changed.
//!
//! Bytes changed anywhere mostly give what no parser accepts. So most changes here keep the module
//! valid, another constant, another operator of the same type, other data, and it runs, wrongly.

use std::ops::Range;

use arbitrary::{Result, Unstructured};
use wasm_encoder::{Module, RawSection};
use wasmparser::{Operator, Parser, Payload};

/// A module, and the places in it where a change leaves it valid.
pub(crate) struct Base {
    bytes: Vec<u8>,
    /// The id and the content of each section.
    sections: Vec<(u8, Range<usize>)>,
    /// The last byte of a constant's number: its low six bits are any.
    constants: Vec<usize>,
    /// Operators of one byte, with the first and the last of their kind.
    operators: Vec<(usize, u8, u8)>,
    /// The contents of data segments.
    data: Vec<Range<usize>>,
}

/// Kinds of operators that take and give the same types.
const KINDS: [(u8, u8); 8] =
    // i32 comparisons, i64 comparisons, i32 unary and arithmetic, i64 unary and arithmetic, f32 and f64 arithmetic.
    [
        (0x46, 0x4f),
        (0x51, 0x5a),
        (0x67, 0x69),
        (0x6a, 0x78),
        (0x79, 0x7b),
        (0x7c, 0x8a),
        (0x92, 0x98),
        (0xa0, 0xa6),
    ];

impl Base {
    /// Looks at a module.
    ///
    /// # Panics
    /// If it is not valid: it is one of ours.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        let mut base =
            Self { sections: Vec::new(), constants: Vec::new(), operators: Vec::new(), data: Vec::new(), bytes };
        for payload in Parser::new(0).parse_all(&base.bytes) {
            let payload = payload.expect("a module of ours");
            if let Some((id, range)) = payload.as_section() {
                base.sections.push((id, place(range.start)..place(range.end)));
            }
            match payload {
                Payload::CodeSectionEntry(body) => {
                    let reader = body.get_operators_reader().expect("operators");
                    let operators: Vec<_> =
                        reader.into_iter_with_offsets().map(|found| found.expect("an operator")).collect();
                    let operators: Vec<_> = operators.into_iter().map(|(found, at)| (found, place(at))).collect();
                    let end = place(body.range().end);
                    for (index, (operator, at)) in operators.iter().enumerate() {
                        let next = operators.get(index + 1).map_or(end, |(_, next)| *next);
                        let code = base.bytes[*at];
                        if matches!(operator, Operator::I32Const { .. } | Operator::I64Const { .. }) {
                            base.constants.push(next - 1);
                        } else if let Some((first, last)) =
                            KINDS.iter().find(|(first, last)| (*first..=*last).contains(&code))
                        {
                            base.operators.push((*at, *first, *last));
                        }
                    }
                }
                Payload::DataSection(section) => {
                    for segment in section {
                        let segment = segment.expect("a segment");
                        let end = place(segment.range.end);
                        base.data.push(end - segment.data.len()..end);
                    }
                }
                _ => {}
            }
        }
        base
    }
}

/// An offset in a module of ours, which has less than 4 GiB.
fn place(offset: u64) -> usize {
    usize::try_from(offset).expect("a module that is in memory")
}

/// The module with one to four changes.
pub(crate) fn mutated(u: &mut Unstructured<'_>, base: &Base) -> Result<Vec<u8>> {
    let mut bytes = base.bytes.clone();
    for _ in 0..u.int_in_range(1..=4)? {
        match u.int_in_range(0u8..=10)? {
            0..=2 => {
                if let Some(at) = chosen(u, &base.constants)? {
                    // Of a number of several bytes the last one is changed: it is then another by far.
                    bytes[*at] = bytes[*at] & 0x80 | u.int_in_range(0u8..=0x7f)?;
                }
            }
            3..=5 => {
                if let Some((at, first, last)) = chosen(u, &base.operators)? {
                    bytes[*at] = u.int_in_range(*first..=*last)?;
                }
            }
            6 | 7 => {
                if let Some(range) = chosen(u, &base.data)?.filter(|range| !range.is_empty()) {
                    let at = u.int_in_range(range.start..=range.end - 1)?;
                    bytes[at] = u.arbitrary()?;
                }
            }
            8 => {
                let at = u.int_in_range(0..=bytes.len() - 1)?;
                bytes[at] = u.arbitrary()?;
            }
            9 => {
                bytes.truncate(u.int_in_range(0..=bytes.len())?);
                return Ok(bytes);
            }
            // Sections are put together anew, so where things lie is not known any more.
            _ => return rearranged(u, base, &bytes),
        }
    }
    Ok(bytes)
}

fn chosen<'b, T>(u: &mut Unstructured<'_>, choices: &'b [T]) -> Result<Option<&'b T>> {
    if choices.is_empty() { Ok(None) } else { u.choose(choices).map(Some) }
}

/// Two sections exchanged, one left out, or one twice.
fn rearranged(u: &mut Unstructured<'_>, base: &Base, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut order: Vec<usize> = (0..base.sections.len()).collect();
    let last = order.len() - 1;
    let (one, other) = (u.int_in_range(0..=last)?, u.int_in_range(0..=last)?);
    match u.int_in_range(0u8..=2)? {
        0 => order.swap(one, other),
        1 => drop(order.remove(one)),
        _ => order.insert(other, one),
    }
    let mut module = Module::new();
    for index in order {
        let (id, range) = &base.sections[index];
        module.section(&RawSection { id: *id, data: &bytes[range.clone()] });
    }
    Ok(module.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_of_a_module_are_found_and_its_parts_put_together_are_the_module() {
        let text = r#"(module (memory 1) (data (i32.const 8) "abc")
            (func (result i32) i32.const 300 i32.const 1 i32.add))"#;
        let base = Base::new(wat::parse_str(text).expect("wat"));
        assert_eq!(base.data.iter().map(|range| &base.bytes[range.clone()]).collect::<Vec<_>>(), [b"abc"]);
        assert_eq!(base.operators.iter().map(|(at, ..)| base.bytes[*at]).collect::<Vec<_>>(), [0x6a]);
        // 300 is ac 02, 1 is 01.
        assert_eq!(base.constants.iter().map(|at| base.bytes[*at]).collect::<Vec<_>>(), [2, 1]);
        let mut module = Module::new();
        for (id, range) in &base.sections {
            module.section(&RawSection { id: *id, data: &base.bytes[range.clone()] });
        }
        assert_eq!(module.finish(), base.bytes);
    }
}
