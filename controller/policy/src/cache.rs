//! Compiled modules on disk, so that a restart does not compile everything again.
//!
//! Machine code runs as this process, so a file is used only when it is certain that this program
//! has written it: it is a regular file of ours that nobody else may write or read, it has the right
//! name for what is in it, and a message authentication code (HMAC-SHA-256) over all of it, with a
//! key that is beside it, or in a file that was named. Whatever is wrong with a file, it is as if it
//! were not there, except that it is told; the module is compiled, and the file replaced.
//!
//! What is read is checked and used from the same bytes in memory. Nothing of a user's gets here: a
//! user uploads WebAssembly, and only what our compiler has made of it is kept.
//!
//! With the key beside the files the code protects against broken files, files of another program
//! or user, and files in each other's place. Against somebody who can read what we can read only
//! a key from elsewhere helps, for instance from a Secret.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};

use crate::{
    limits::{ARTEFACT_MAX, Bytes, CACHE_FILES_MAX, CACHE_MAX},
    module::Digest,
};

/// What every file begins with; the number is the version of the layout.
const MAGIC: [u8; 8] = *b"kndcomp1";
/// Magic, the module's digest, the engine's hash, the code.
const HEADER: usize = 8 + 32 + 32 + 32;
/// As long as the digest that it is used with, which is what HMAC's authors advise.
const KEY: usize = 32;
/// The most that is read of a key file: a longer one is no key.
const KEY_FILE_MAX: u64 = 4096;
/// The directory inside of the one that was named. That one may be a mount point, which belongs to
/// somebody else and is open to everybody; this one is ours.
const DIRECTORY: &str = "compiled";
const KEY_FILE: &str = "key";
const SUFFIX: &str = ".code";
const TEMPORARY: &str = ".tmp-";

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
#[error("the cache of compiled modules in {} cannot be used: {problem}", path.display())]
pub struct CacheError {
    /// Where.
    path: PathBuf,
    /// What was attempted and how it ended.
    problem: String,
}

/// A directory of compiled modules.
pub struct Cache {
    directory: PathBuf,
    key: hmac::Key,
    most: Bytes,
    /// Held while files are written and counted. Reading needs no lock: a file is replaced as a whole.
    writing: Mutex<()>,
    temporary: AtomicU64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("directory", &self.directory).field("most", &self.most).finish_non_exhaustive()
    }
}

/// What was found for a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its machine code, as this program has once made it.
    Code(Vec<u8>),
    /// Nothing.
    Nothing,
    /// Something that is not used, and why.
    Unfit(String),
}

impl Cache {
    /// Opens or makes a cache. The key is read from `key_file`, or else from a file in the cache,
    /// which is made at first use. The texts are warnings.
    ///
    /// # Errors
    /// If the directory cannot be made or is not ours, or if the key that was named cannot be read.
    pub fn open(directory: &Path, key_file: Option<&Path>) -> Result<(Self, Vec<String>), CacheError> {
        Self::open_with(directory, key_file, CACHE_MAX)
    }

    /// As [`Cache::open`], with another limit.
    ///
    /// # Errors
    /// As [`Cache::open`].
    pub fn open_with(
        directory: &Path,
        key_file: Option<&Path>,
        most: Bytes,
    ) -> Result<(Self, Vec<String>), CacheError> {
        let failed = |path: &Path, problem: String| CacheError { path: path.to_path_buf(), problem };
        let own = directory.join(DIRECTORY);
        fs::create_dir_all(directory).map_err(|e| failed(directory, format!("it cannot be made: {e}")))?;
        match fs::DirBuilder::new().mode(0o700).create(&own) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(&own, format!("it cannot be made: {error}")));
            }
            _ => {}
        }
        // Of the entry itself: a link to elsewhere is not ours.
        let is = fs::symlink_metadata(&own).map_err(|e| failed(&own, format!("it cannot be looked at: {e}")))?;
        if !is.is_dir() {
            return Err(failed(&own, "it is not a directory; remove it".to_owned()));
        }
        if let Some(problem) = not_private(&is) {
            return Err(failed(&own, format!("{problem}; remove it, or name another directory")));
        }
        let mut warnings = Vec::new();
        sweep(&own);
        let key = match key_file {
            Some(path) => named_key(path).map_err(|problem| failed(path, problem))?,
            None => own_key(&own, &mut warnings).map_err(|problem| failed(&own.join(KEY_FILE), problem))?,
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let cache = Self { directory: own, key, most, writing: Mutex::new(()), temporary: AtomicU64::new(0) };
        Ok((cache, warnings))
    }

    fn path(&self, digest: &Digest, engine: &[u8; 32]) -> PathBuf {
        // Half of the engine's hash is enough to tell two versions apart; the whole of it is inside.
        let name: String = digest.0.iter().chain(&engine[..16]).map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(name + SUFFIX)
    }

    /// Looks for a module's machine code.
    pub(crate) fn find(&self, digest: &Digest, engine: &[u8; 32]) -> Found {
        let path = self.path(digest, engine);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Found::Nothing,
            Err(rustix::io::Errno::LOOP) => return Found::Unfit(format!("{} is a symbolic link", path.display())),
            Err(error) => return Found::Unfit(format!("{} cannot be opened: {error}", path.display())),
        };
        match self.read(&file, digest, engine) {
            Ok(code) => {
                // The time of last use, by which the oldest is found. If it cannot be set, the file
                // goes sooner than it need.
                let _ = file.set_modified(SystemTime::now());
                Found::Code(code)
            }
            Err(problem) => Found::Unfit(format!("{}: {problem}", path.display())),
        }
    }

    fn read(&self, file: &File, digest: &Digest, engine: &[u8; 32]) -> Result<Vec<u8>, String> {
        let is = file.metadata().map_err(|error| format!("it cannot be looked at: {error}"))?;
        if !is.is_file() {
            return Err("it is not a regular file".to_owned());
        }
        if let Some(problem) = not_private(&is) {
            return Err(problem);
        }
        if is.nlink() != 1 {
            return Err("it has a second name, so somebody else may have made it".to_owned());
        }
        let most = HEADER + ARTEFACT_MAX.0;
        if is.size() > most as u64 {
            return Err(format!("it has {} bytes; the limit is {most}", is.size()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(is.size()).unwrap_or(0));
        file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
        let (head, code) = bytes.split_at_checked(HEADER).ok_or("it is cut off")?;
        let (signed, tag) = head.split_at(HEADER - 32);
        if hmac::verify(&self.key, &[signed, code].concat(), tag).is_err() {
            return Err("it is not what this program wrote, or was written with another key".to_owned());
        }
        // It is ours; but is it what its name says?
        if signed != header(digest, engine) {
            return Err("it is another module's, or was compiled with other settings".to_owned());
        }
        Ok(code.to_vec())
    }

    /// Keeps a module's machine code, and lets the oldest go if there is too much.
    ///
    /// # Errors
    /// What was attempted and how it failed. Nothing depends on it but the next start's speed.
    pub(crate) fn keep(&self, digest: &Digest, engine: &[u8; 32], code: &[u8]) -> Result<(), String> {
        let path = self.path(digest, engine);
        let signed = header(digest, engine);
        let mut tag = hmac::Context::with_key(&self.key);
        tag.update(&signed);
        tag.update(code);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
        let written = write_new(&temporary, &[&signed, tag.sign().as_ref(), code])
            // Over whatever is there: a link is replaced, not followed.
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(format!("{} cannot be written: {error}", path.display()));
        }
        self.make_room(&path);
        Ok(())
    }

    /// Lets files go, the longest unused first, until what is left is within the limits.
    fn make_room(&self, newest: &Path) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let path = entry.path();
                let is = entry.metadata().ok()?;
                let ours = path.to_str().is_some_and(|path| path.ends_with(SUFFIX)) && path != newest;
                ours.then(|| (is.modified().unwrap_or(SystemTime::UNIX_EPOCH), is.len(), path))
            })
            .collect();
        files.sort();
        let own = fs::metadata(newest).map_or(0, |is| is.len());
        let mut size: u64 = own + files.iter().map(|(_, size, _)| size).sum::<u64>();
        let mut count = files.len() + 1;
        for (_, bytes, path) in files {
            if size <= self.most.0 as u64 && count <= CACHE_FILES_MAX {
                return;
            }
            if fs::remove_file(&path).is_ok() {
                size -= bytes;
                count -= 1;
            }
        }
        if size > self.most.0 as u64 {
            // One alone is too large.
            let _ = fs::remove_file(newest);
        }
    }
}

fn header(digest: &Digest, engine: &[u8; 32]) -> Vec<u8> {
    [MAGIC.as_slice(), &digest.0, engine].concat()
}

/// What is wrong with a file's owner or permissions.
fn not_private(is: &fs::Metadata) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if is.uid() != own {
        return Some(format!("it belongs to user {}, and this is user {own}", is.uid()));
    }
    let mode = is.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| format!("others have rights to it (mode {mode:o})"))
}

fn write_new(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    // create_new: neither a link nor a file of somebody else is written to.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    parts.iter().try_for_each(|part| file.write_all(part))
}

/// What a process that was killed has left behind.
fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A key that somebody else looks after, so its owner and its links are their business.
fn named_key(path: &Path) -> Result<Vec<u8>, String> {
    let mut key = Vec::new();
    let read = File::open(path).and_then(|file| file.take(KEY_FILE_MAX + 1).read_to_end(&mut key));
    read.map_err(|error| format!("the key cannot be read: {error}"))?;
    if key.len() < KEY || key.len() as u64 > KEY_FILE_MAX {
        return Err(format!("the key has {} bytes; it must have from {KEY} to {KEY_FILE_MAX}", key.len()));
    }
    Ok(key)
}

/// Our own key. One that is not as we make it may be known to others, so it is replaced.
fn own_key(directory: &Path, warnings: &mut Vec<String>) -> Result<Vec<u8>, String> {
    let path = directory.join(KEY_FILE);
    match read_own_key(&path) {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {}
        Err(problem) => {
            warnings
                .push(format!("{}: {problem}; a new key is made, and what is there is compiled again", path.display()));
            fs::remove_file(&path).map_err(|error| format!("the old key cannot be removed: {error}"))?;
        }
    }
    let mut key = [0; KEY];
    SystemRandom::new().fill(&mut key).map_err(|_| "the system gives no random bytes".to_owned())?;
    let temporary = directory.join(format!("{TEMPORARY}key-{}", std::process::id()));
    write_new(&temporary, &[&key]).map_err(|error| format!("the key cannot be written: {error}"))?;
    // Whole or not at all, and never over another's who was quicker.
    let placed = rustix::fs::renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE);
    if let Err(error) = placed {
        let _ = fs::remove_file(&temporary);
        return read_own_key(&path)?.ok_or_else(|| format!("the key cannot be put in its place: {error}"));
    }
    Ok(key.to_vec())
}

fn read_own_key(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(format!("the key cannot be opened: {error}")),
    };
    let is = file.metadata().map_err(|error| format!("the key cannot be looked at: {error}"))?;
    if let Some(problem) = not_private(&is) {
        return Err(problem);
    }
    let mut key = Vec::new();
    file.take(KEY_FILE_MAX).read_to_end(&mut key).map_err(|error| format!("the key cannot be read: {error}"))?;
    if key.len() == KEY { Ok(Some(key)) } else { Err(format!("the key has {} bytes, not {KEY}", key.len())) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ENGINE: [u8; 32] = [9; 32];
    const CODE: &[u8] = b"machine code";

    fn digest(of: &str) -> Digest {
        Digest::of(of.as_bytes())
    }

    fn open(directory: &Path) -> Cache {
        let (cache, warnings) = Cache::open(directory, None).expect("a cache");
        assert_eq!(warnings, [""; 0]);
        cache
    }

    /// A cache with the code of the module "m", and the file that it is in.
    fn filled(directory: &Path) -> (Cache, PathBuf) {
        let cache = open(directory);
        cache.keep(&digest("m"), &ENGINE, CODE).expect("kept");
        let path = cache.path(&digest("m"), &ENGINE);
        (cache, path)
    }

    #[test]
    fn what_was_kept_is_found_also_by_the_next_process() {
        let directory = tempfile::tempdir().expect("a directory");
        let (cache, path) = filled(directory.path());
        for cache in [cache, open(directory.path())] {
            assert_eq!(cache.find(&digest("m"), &ENGINE), Found::Code(CODE.to_vec()));
            assert_eq!(cache.find(&digest("other"), &ENGINE), Found::Nothing);
            assert_eq!(cache.find(&digest("m"), &[8; 32]), Found::Nothing);
        }
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        let own = path.parent().expect("a directory");
        assert_eq!((mode(own), mode(&path), mode(&own.join(KEY_FILE))), (0o700, 0o600, 0o600));
    }

    /// Every way in which a file can be other than it was written: it is told, and replaced.
    #[test]
    fn what_this_program_did_not_write_is_not_used() {
        type Tamper = fn(&Cache, &Path);
        let cases: [(&str, Tamper, &str); 12] = [
            ("a bit of the code", |_, path| flip(path, HEADER + 2), "not what this program wrote"),
            ("a bit of the magic", |_, path| flip(path, 0), "not what this program wrote"),
            ("a bit of the digest", |_, path| flip(path, 10), "not what this program wrote"),
            ("a bit of the engine", |_, path| flip(path, 50), "not what this program wrote"),
            ("a bit of the tag", |_, path| flip(path, HEADER - 1), "not what this program wrote"),
            ("cut off", |_, path| change(path, |bytes| bytes.truncate(HEADER + 3)), "not what this program wrote"),
            ("cut off early", |_, path| change(path, |bytes| bytes.truncate(20)), "it is cut off"),
            ("longer", |_, path| change(path, |bytes| bytes.push(0)), "not what this program wrote"),
            (
                "another module's",
                |cache, path| {
                    cache.keep(&digest("other"), &ENGINE, b"other code").expect("kept");
                    fs::rename(cache.path(&digest("other"), &ENGINE), path).expect("swapped");
                },
                "another module's",
            ),
            (
                "of other settings",
                |cache, path| {
                    cache.keep(&digest("m"), &[8; 32], b"other code").expect("kept");
                    fs::rename(cache.path(&digest("m"), &[8; 32]), path).expect("swapped");
                },
                "other settings",
            ),
            (
                "a link to itself elsewhere",
                |_, path| {
                    let elsewhere = path.with_extension("elsewhere");
                    fs::rename(path, &elsewhere).expect("moved");
                    symlink(elsewhere, path).expect("linked");
                },
                "symbolic link",
            ),
            (
                "open to others",
                |_, path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("opened"),
                "others have rights to it (mode 640)",
            ),
        ];
        for (name, tamper, says) in cases {
            let directory = tempfile::tempdir().expect("a directory");
            let (cache, path) = filled(directory.path());
            tamper(&cache, &path);
            let found = cache.find(&digest("m"), &ENGINE);
            assert!(matches!(&found, Found::Unfit(problem) if problem.contains(says)), "{name}: {found:?}");
            cache.keep(&digest("m"), &ENGINE, CODE).expect("replaced");
            assert_eq!(cache.find(&digest("m"), &ENGINE), Found::Code(CODE.to_vec()), "{name}");
        }
    }

    fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).expect("read");
        how(&mut bytes);
        fs::write(path, bytes).expect("written");
    }

    fn flip(path: &Path, at: usize) {
        change(path, |bytes| bytes[at] ^= 1);
    }

    #[test]
    fn a_file_that_may_be_a_strangers_is_not_used() {
        let directory = tempfile::tempdir().expect("a directory");
        let (cache, path) = filled(directory.path());
        fs::hard_link(&path, path.with_extension("second")).expect("linked");
        assert!(matches!(cache.find(&digest("m"), &ENGINE), Found::Unfit(problem) if problem.contains("second name")));
        // Somebody else's, where we are allowed to give a file away: as root.
        cache.keep(&digest("m"), &ENGINE, CODE).expect("replaced");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(65_534), None).expect("given away");
            let found = cache.find(&digest("m"), &ENGINE);
            assert!(matches!(&found, Found::Unfit(problem) if problem.contains("belongs to user 65534")), "{found:?}");
        }
    }

    #[test]
    fn a_key_that_others_may_know_is_replaced() {
        type Tamper = fn(&Path);
        let cases: [(&str, Tamper); 4] = [
            ("others have rights", |key| fs::set_permissions(key, fs::Permissions::from_mode(0o644)).expect("opened")),
            ("has 31 bytes", |key| change(key, |bytes| bytes.truncate(31))),
            ("has 0 bytes", |key| change(key, Vec::clear)),
            ("cannot be opened", |key| {
                fs::rename(key, key.with_extension("elsewhere")).expect("moved");
                symlink(key.with_extension("elsewhere"), key).expect("linked");
            }),
        ];
        for (says, tamper) in cases {
            let directory = tempfile::tempdir().expect("a directory");
            let (_, path) = filled(directory.path());
            tamper(&path.with_file_name(KEY_FILE));
            let (cache, warnings) = Cache::open(directory.path(), None).expect("a cache");
            assert!(warnings.len() == 1 && warnings[0].contains(says), "{says}: {warnings:?}");
            assert!(matches!(cache.find(&digest("m"), &ENGINE), Found::Unfit(p) if p.contains("another key")));
            open(directory.path());
        }
    }

    #[test]
    fn a_key_from_elsewhere_is_read_or_named_in_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let key = directory.path().join("secret");
        fs::write(&key, [1; 32]).expect("written");
        let opened = || Cache::open(&directory.path().join("cache"), Some(&key)).expect("a cache").0;
        opened().keep(&digest("m"), &ENGINE, CODE).expect("kept");
        assert_eq!(opened().find(&digest("m"), &ENGINE), Found::Code(CODE.to_vec()));
        fs::write(&key, [2; 32]).expect("written");
        assert!(matches!(opened().find(&digest("m"), &ENGINE), Found::Unfit(_)), "another key");
        for (bytes, says) in
            [(Some(vec![1; 31]), "has 31 bytes"), (Some(vec![1; 5000]), "4096"), (None, "No such file")]
        {
            match bytes {
                Some(bytes) => fs::write(&key, bytes).expect("written"),
                None => fs::remove_file(&key).expect("removed"),
            }
            let error = Cache::open(&directory.path().join("cache"), Some(&key)).expect_err(says).to_string();
            assert!(error.contains(says) && error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_directory_that_is_not_private_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = directory.path().join(DIRECTORY);
        fs::create_dir(&own).expect("made");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("opened");
        let error = Cache::open(directory.path(), None).expect_err("wide open").to_string();
        assert!(error.contains("mode 777") && error.contains("remove it"), "{error}");
        fs::remove_dir(&own).expect("removed");
        let elsewhere = tempfile::tempdir().expect("a directory");
        symlink(elsewhere.path(), &own).expect("linked");
        assert!(Cache::open(directory.path(), None).expect_err("a link").to_string().contains("not a directory"));
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let directory = tempfile::tempdir().expect("a directory");
        let most = Bytes(3 * (HEADER + 100));
        let (cache, _) = Cache::open_with(directory.path(), None, most).expect("a cache");
        let keep = |name: &str, age: u64| {
            cache.keep(&digest(name), &ENGINE, &[0; 100]).expect("kept");
            let file = File::options().write(true).open(cache.path(&digest(name), &ENGINE)).expect("it is there");
            let then = SystemTime::now() - std::time::Duration::from_secs(age);
            file.set_modified(then).expect("aged");
        };
        let is_there = |name: &str| cache.path(&digest(name), &ENGINE).exists();
        keep("a", 400);
        keep("b", 300);
        keep("c", 200);
        assert!(matches!(cache.find(&digest("a"), &ENGINE), Found::Code(_)), "used, so it is young again");
        keep("d", 100);
        assert_eq!(["a", "b", "c", "d"].map(is_there), [true, false, true, true]);
        // Larger than everything: it is not kept at the others' cost for ever.
        cache.keep(&digest("e"), &ENGINE, &vec![0; most.0]).expect("written");
        assert!(!is_there("e"));
        let left = fs::read_dir(cache.directory.as_path()).expect("readable").count();
        assert!(left <= 4, "{left} files, the key among them");
    }

    #[test]
    fn what_a_killed_process_has_left_is_swept() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, path) = filled(directory.path());
        let left = path.with_file_name(".tmp-1-0");
        fs::write(&left, b"half").expect("written");
        open(directory.path());
        assert!(!left.exists() && path.exists());
    }
}
