//! A token that has expired, although nobody has waited for it: a service account's, signed anew with other times.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// `token` as if it had been issued long ago and had expired at `expires`, in seconds since the epoch. kube-apiserver
/// takes it for a minute longer, since clocks differ.
pub(super) fn expiring(token: &str, key_pem: &str, expires: i64) -> Result<String> {
    let claims = token.split('.').nth(1).context("a token has three parts")?;
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    for (claim, at) in [("exp", expires), ("iat", expires - 3_600), ("nbf", expires - 3_600)] {
        claims[claim] = json!(at);
    }
    let header = json!({ "alg": "ES256", "typ": "JWT" });
    let signed =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let key = KeyPair::from_pem(key_pem).context("the service accounts' key")?;
    let signature = raw(&key.sign(signed.as_bytes())?).context("a signature that is not of P-256")?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// Two numbers of 32 bytes, as a token has them, from the DER that signers give.
fn raw(der: &[u8]) -> Option<[u8; 64]> {
    let mut rest = der.strip_prefix(&[0x30])?.get(1..)?;
    let mut raw = [0; 64];
    for half in raw.chunks_exact_mut(32) {
        let length = usize::from(*rest.strip_prefix(&[0x02])?.first()?);
        let number = rest.get(2..2 + length)?;
        rest = rest.get(2 + length..)?;
        // A leading zero says that the number is not negative, and leading zeros are left out.
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        half.get_mut(32usize.checked_sub(number.len())?..)?.copy_from_slice(number);
    }
    Some(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_filled_up_to_their_length() {
        let mut der = vec![0x30, 0, 0x02, 33, 0];
        der.extend([0xff; 32]);
        der.extend([0x02, 1, 7]);
        let raw = raw(&der).expect("two numbers");
        assert_eq!((raw[..32].to_vec(), raw[32..63].to_vec(), raw[63]), (vec![0xff; 32], vec![0; 31], 7));
        assert_eq!(super::raw(&der[..20]), None);
    }
}
