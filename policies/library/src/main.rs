//! Builds the library of policies and says what came out: `make policies`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match konductor_policy_library::build_all() {
        Ok(modules) => {
            println!("{:<16} {:<15} {:>8} {:>8}  DIGEST", "NAME", "LANGUAGE", "BYTES", "GZIP");
            for module in modules {
                let (policy, digest) = (&module.policy, module.digest());
                let (bytes, gzip) = (module.bytes.len(), module.gzip_len());
                println!("{:<16} {:<15} {bytes:>8} {gzip:>8}  {digest}", policy.name, policy.language);
            }
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("cannot build the policies: {problem}");
            ExitCode::FAILURE
        }
    }
}
