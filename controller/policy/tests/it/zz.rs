use crate::common::*;
#[test]
fn zz() { for n in ["loops","fills","recurses","grows"] { let p = load(n).unwrap(); for _ in 0..3 { let t=std::time::Instant::now(); let f=p.decide(&question(&[]),"{}").unwrap_err(); eprintln!("{n} {} {:?}", f.reason(), t.elapsed()); } } }
