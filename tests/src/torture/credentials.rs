//! The controllers' token goes bad, or expires.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, api::DeleteParams};

use super::{ACCOUNT, CONTROLLERS, LEASES, LONG, RECOVERS_WITHIN, Torture, token};
use crate::{Controller, identity, wait::pause, within};

/// How long it may take until a controller takes a token from its file: it reads it once a minute, and what it is told
/// then it tries again after a pause.
const RENEWED_WITHIN: Duration = Duration::from_secs(150);
/// kube-apiserver takes a token for a minute after it has expired. It is accepted still when a controller reads it, in
/// nearly all cases, and refused soon after: in seconds.
const EXPIRED_FOR: i64 = 30;

impl Torture<'_> {
    /// The service account is deleted, with it its tokens; later there is another one of its name, and a new token.
    pub(super) async fn replaces_token(&mut self) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.plane.admin().clone(), ACCOUNT.0);
        let seen: Vec<usize> = self.controllers.iter().map(|controller| refusals(&controller.log())).collect();
        accounts
            .delete(ACCOUNT.1, &DeleteParams::default())
            .await
            .unwrap_or_else(|problem| panic!("cannot delete the service account: {problem}"));
        // kube-apiserver believes a token for some seconds more.
        within("the controllers are told that their token is not valid", RECOVERS_WITHIN, async || {
            let told = |(controller, before): (&Controller, &usize)| refusals(&controller.log()) > *before;
            if self.controllers.iter().zip(&seen).all(told) { Ok(()) } else { Err("not both were told") }
        })
        .await;
        let granted = self.tokens().await;
        pause(LONG).await;
        assert_eq!(self.tokens().await, granted, "a controller whose token is not valid has granted a lease");
        identity::make_user(self.plane.admin(), ACCOUNT.0, ACCOUNT.1, &[])
            .await
            .unwrap_or_else(|problem| panic!("{problem:#}"));
        self.plane.kubeconfig_for_service_account(ACCOUNT.0, ACCOUNT.1).await;
        // One after the other, as a roll-out does it.
        for index in 0..CONTROLLERS {
            self.controllers[index].kill();
            self.controllers[index] = self.controller(index).await;
        }
    }

    /// The controllers' token expires. Later somebody renews the file, and they go on as they are.
    pub(super) async fn renews_token(&mut self) {
        let seen: Vec<usize> = self.controllers.iter().map(|controller| refusals(&controller.log())).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let expires = i64::try_from(now.as_secs()).unwrap_or_default() - EXPIRED_FOR;
        let key = self.plane.servers().account_key();
        let mut good = Vec::new();
        for index in 0..CONTROLLERS {
            let path = self.token_file(index);
            let token = std::fs::read_to_string(&path).unwrap_or_else(|problem| panic!("no token: {problem}"));
            // One that is signed like this and has not expired is taken: what is refused is refused for its age.
            self.is_taken(&token::expiring(&token, &key, expires + 3_600)).await;
            let old = token::expiring(&token, &key, expires).unwrap_or_else(|problem| panic!("{problem:#}"));
            std::fs::write(&path, old).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
            good.push((path, token));
        }
        within("the controllers are told that their token has expired", RENEWED_WITHIN, async || {
            let told = |(controller, before): (&Controller, &usize)| refusals(&controller.log()) > *before;
            if self.controllers.iter().zip(&seen).all(told) { Ok(()) } else { Err("not both were told") }
        })
        .await;
        let granted = self.tokens().await;
        pause(LONG).await;
        assert_eq!(self.tokens().await, granted, "a controller whose token has expired has granted a lease");
        for (path, token) in good {
            std::fs::write(&path, token).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        }
        within("the controllers take the new token from its file", RENEWED_WITHIN, async || {
            if self.tokens().await == granted { Err("nothing is granted") } else { Ok(()) }
        })
        .await;
    }

    /// kube-apiserver takes this token of the controllers.
    async fn is_taken(&self, token: &anyhow::Result<String>) {
        let token = token.as_ref().unwrap_or_else(|problem| panic!("{problem:#}"));
        let path = self.plane.directory().join("signed-anew.kubeconfig");
        let text = self.plane.servers().kubeconfig(ACCOUNT.1, token, ACCOUNT.0);
        std::fs::write(&path, text.unwrap_or_else(|problem| panic!("{problem:#}")))
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        let client = crate::kubeconfig::client(&path).await.unwrap_or_else(|problem| panic!("{problem:#}"));
        let leases: Api<konductor_crds::Lease> = Api::namespaced(client, self.team.name());
        leases
            .get(LEASES[0])
            .await
            .unwrap_or_else(|problem| panic!("a token that was signed anew is refused: {problem}"));
    }
}

/// How often a controller was told that nobody knows it.
fn refusals(log: &str) -> usize {
    log.matches("Unauthorized").count()
}
