//! The examples of a Markdown page. Also part of tests of koncli and of the library of policies, which include this file.

/// A block between two lines that begin with three backticks.
pub struct Block {
    /// What stands behind the first ones: a language, and what else a reader is told.
    pub info: String,
    /// What is in it, line by line.
    pub text: String,
}

/// The blocks of a page, in order.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(info) if !open => {
                blocks.push(Block { info: info.trim().to_owned(), text: String::new() });
                open = true;
            }
            Some(_) => open = false,
            None => {
                if let (true, Some(block)) = (open, blocks.last_mut()) {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
            }
        }
    }
    blocks
}
