//! Names that this client makes up.

use super::error::Problem;

/// The longest name of a Kubernetes object.
const NAME_MAX: usize = 253;
/// The longest value of a label.
const LABEL_MAX: usize = 63;
/// Letters that cannot form a word, and digits that cannot be mistaken for letters: those that
/// Kubernetes itself uses for generated names. 27^10 of them are 47 bits.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 10;

/// Where chance comes from: the names of requests, and by how much pauses differ.
pub trait Randomness: Send + Sync + 'static {
    /// Fills the whole slice.
    ///
    /// # Errors
    /// Why there is none.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), String>;
}

/// The operating system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), String> {
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(read) => filled += read,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("the operating system gives no random numbers: {error}")),
            }
        }
        Ok(())
    }
}

/// A new name for a request for `lease`: the lease's name, shortened if needed, and ten random characters.
pub(crate) fn request_name(lease: &str, random: &dyn Randomness) -> Result<String, Problem> {
    let mut bytes = [0; SUFFIX];
    random.fill(&mut bytes).map_err(Problem::Local)?;
    Ok(request_name_from(lease, bytes))
}

fn request_name_from(lease: &str, random: [u8; SUFFIX]) -> String {
    let room = NAME_MAX - SUFFIX - 1;
    let mut stem: String = lease.chars().filter(|c| c.is_ascii()).take(room).collect();
    // A name may not have "." beside "-", and ours ends in "-".
    stem.truncate(stem.trim_end_matches(['.', '-']).len());
    let suffix = random.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    if stem.is_empty() { suffix.iter().collect() } else { format!("{stem}-{}", suffix.iter().collect::<String>()) }
}

/// Whether a text can be the value of a label, so that requests can be selected by their lease.
pub(crate) fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= LABEL_MAX
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// What is wrong with a text as the name of a Kubernetes object, if anything.
#[must_use]
pub fn object_name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("is empty".to_owned());
    }
    if name.len() > NAME_MAX {
        return Some(format!("has {} characters; the limit is {NAME_MAX}", name.len()));
    }
    let fits = |label: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    (!name.split('.').all(fits)).then(|| {
        "may have lower-case letters, digits, '-' and '.' only, and must begin and end with a letter or digit"
            .to_owned()
    })
}

/// A number from 0.8 to 1.2, so that many clients that started together do not stay together.
pub(crate) fn jitter(random: &dyn Randomness) -> f64 {
    let mut byte = [128];
    // Without chance everybody pauses for as long: worse, and no reason to fail.
    let _ = random.fill(&mut byte);
    let [byte] = byte;
    // 256 and not 255: the sum of rounded parts would be a little above 1.2.
    0.8 + 0.4 * f64::from(byte) / 256.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_names_are_valid_and_differ() {
        for lease in ["db-migration", "a.b", &"x".repeat(253), &format!("{}.y", "x".repeat(241)), "a"] {
            let name = request_name(lease, &SystemRandomness).expect("random");
            assert_eq!(object_name_problem(&name), None, "{name}");
            assert_ne!(name, request_name(lease, &SystemRandomness).expect("random"));
        }
        assert_eq!(request_name_from("db-migration", [0; 10]), "db-migration-bbbbbbbbbb");
        // Every letter can come up, and no more of the lease's name is cut than must be.
        let bytes = [0, 1, 25, 26, 27, 28, 53, 54, 254, 255];
        assert_eq!(request_name_from("a", bytes), "a-bc89bc9bpq");
        assert_eq!(request_name_from(&"x".repeat(253), bytes).len(), 253);
    }

    #[test]
    fn labels_and_names_are_checked_as_kubernetes_checks_them() {
        for (text, label, name) in [
            ("db-migration", true, true),
            ("a.b", true, true),
            ("A", true, false),
            ("a_b", true, false),
            ("-a", false, false),
            ("", false, false),
            ("a b", false, false),
            (&"x".repeat(64), false, true),
            (&"x".repeat(254), false, false),
            ("a..b", true, false),
        ] {
            assert_eq!(is_label_value(text), label, "{text}");
            assert_eq!(object_name_problem(text).is_none(), name, "{text}");
        }
    }

    #[test]
    fn jitter_stays_within_a_fifth_and_goes_all_the_way() {
        struct Always(u8);
        impl Randomness for Always {
            fn fill(&self, bytes: &mut [u8]) -> Result<(), String> {
                bytes.fill(self.0);
                Ok(())
            }
        }
        for (byte, least, most) in [(0, 0.8, 0.801), (128, 0.999, 1.001), (255, 1.198, 1.2)] {
            assert!((least..=most).contains(&jitter(&Always(byte))), "{byte}");
        }
        for _ in 0..10_000 {
            assert!((0.8..=1.2).contains(&jitter(&SystemRandomness)));
        }
    }
}
