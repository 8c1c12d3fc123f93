//! Takes out of a module what a policy has no use for.

/// A WebAssembly module begins with its magic number and its version.
const HEADER: usize = 8;
/// The id of a custom section.
const CUSTOM: u8 = 0;

/// The module without its custom sections, except the names of its functions: they are what a trap's backtrace shows.
/// Debug information is nine tenths of what Zig makes, and names the places of this machine's files.
///
/// # Errors
/// If the bytes are cut off or are no sections.
pub fn without_debug(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut kept = module.get(..HEADER).ok_or("the module is shorter than its header")?.to_vec();
    let mut rest = &module[HEADER..];
    while let Some((&id, after_id)) = rest.split_first() {
        let (len, body) = number(after_id)?;
        let section = body.get(..len).ok_or("a section is longer than the module")?;
        let whole = rest.len() - body.len() + len;
        if id != CUSTOM || name(section)? == b"name" {
            kept.extend_from_slice(&rest[..whole]);
        }
        rest = &rest[whole..];
    }
    Ok(kept)
}

fn name(custom: &[u8]) -> Result<&[u8], String> {
    let (len, rest) = number(custom)?;
    rest.get(..len).ok_or_else(|| "a custom section is shorter than its name".to_owned())
}

/// An unsigned number as WebAssembly writes it (LEB128, at most 32 bits), and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8]), String> {
    let mut value = 0usize;
    for (place, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[place + 1..]));
        }
    }
    Err("a length is cut off or longer than 32 bits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::without_debug;

    const EMPTY: &[u8] = b"\0asm\x01\0\0\0";

    fn module(sections: &[&[u8]]) -> Vec<u8> {
        [&[EMPTY], sections].concat().concat()
    }

    #[test]
    fn only_the_names_stay() {
        let types: &[u8] = b"\x01\x04\x01\x60\0\0";
        let names: &[u8] = b"\0\x08\x04name\x01\x01\0";
        let debug: &[u8] = b"\0\x0e\x0b.debug_infoxx";
        let padded: &[u8] = b"\0\x83\0\x02hi";
        assert_eq!(without_debug(&module(&[debug, types, padded, names])), Ok(module(&[types, names])));
        assert_eq!(without_debug(EMPTY), Ok(EMPTY.to_vec()));
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for bytes in [&EMPTY[..7], &module(&[b"\x01"]), &module(&[b"\x01\x05\0"]), &module(&[b"\0\x02\x09x"])] {
            assert!(without_debug(bytes).is_err(), "{bytes:?}");
        }
        assert!(without_debug(&module(&[b"\x01\xff\xff\xff\xff\xff\x01"])).is_err());
    }
}
