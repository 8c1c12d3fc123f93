//! Errors name the fix: each with a real API server, and the fix works where a test can do it.

use konductor_tests::*;

use crate::lifecycle::hold;

#[tokio::test]
async fn every_error_says_what_to_do() {
    let plane = ControlPlane::start(Options::default()).await;
    let team = plane.namespace("team").await;
    let stranger = team.user(&[]).await;

    let server = format!("https://127.0.0.1:{}", plane.servers().apiserver_port());

    // Nothing is installed: the administrator is told so by every command.
    let admin = |words: &str| plane.koncli(&format!("-n team {words}"));
    for words in ["lease list", "lease status db", "lease acquire db --holder me", "lease watch", "lease explain db"] {
        let told = admin(words).run().await.exits_with(5).complains("Konductor Lease is not installed in this cluster");
        told.complains("kubectl apply -k deploy").complains(&server);
    }
    plane.install().await;

    // Nobody has allowed anything. What is said to grant it does.
    let refused = stranger.koncli("lease list").run().await.exits_with(6);
    let refused = refused
        .complains("not allowed to list leases.konductor.io")
        .complains("the ClusterRole konductor-lease-user in this namespace")
        .complains("konductor-lease-viewer is enough to look")
        .complains("\"list\" on \"leases.konductor.io\"");
    let (_, grant) = refused.stderr.split_once("who may grant it says: kubectl ").expect("a command");
    let grant = grant.lines().next().expect("a line");
    plane.kubectl(grant).run().await.succeeds();
    eventually("the role is granted", async || {
        let listed = stranger.koncli("lease list").run().await;
        if listed.code == 0 { Ok(()) } else { Err(listed) }
    })
    .await;

    // A lease that is missing: mistyped, elsewhere, or Kubernetes' own.
    team.create_lease("db-migration", "10m").await;
    plane.namespace("prod").await.create_lease("report", "10m").await;
    let typo = stranger.koncli("lease status db-migratoin").run().await.exits_with(4);
    let typo = typo.complains("leases with a similar name there: db-migration").complains("koncli lease create");
    typo.complains("the namespace \"team\" is named by the kubeconfig's context");
    let missing = stranger.koncli("lease status report").run().await.exits_with(4);
    assert!(!missing.stderr.contains("prod"), "who may not look elsewhere is told nothing of it: {missing}");
    let elsewhere = admin("lease status report").run().await.exits_with(4);
    elsewhere
        .complains("there is one of this name in namespace \"prod\": -n prod")
        .complains("is named by --namespace");
    let node_lease = "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: leader, namespace: team}\n";
    let file = plane.directory().join("leader.yaml");
    std::fs::write(&file, node_lease).expect("written");
    plane.kubectl("apply -f").arg(&file).run().await.succeeds();
    let confused = admin("lease status leader").run().await.exits_with(4);
    confused.complains("coordination.k8s.io").complains("kubectl get kl");
    plane.kubectl("get kl -n team").run().await.succeeds().prints("db-migration");
    admin("lease create x --ttl 1m -n nowhere")
        .run()
        .await
        .exits_with(4)
        .complains("there is no namespace \"nowhere\"");

    // Nobody decides.
    let idle = stranger.koncli("lease acquire db-migration --holder me --timeout 0").run().await.exits_with(5);
    idle.complains("no controller answered within")
        .complains("kubectl get pods -A -l app.kubernetes.io/name=konductor-lease");

    // The wrong cluster.
    let context = stranger.koncli("lease list --context prod").run().await.exits_with(5);
    context.complains("prod").complains("there are: ").complains("--context");
    plane.stop_apiserver().await;
    let away = stranger.koncli("lease list").run().await.exits_with(5);
    away.complains("did not answer").complains(&format!("the API server is {server}"));
    // 125: of `lease run`, what would have run has not.
    let away = stranger.koncli("lease run db-migration -- true").run().await.exits_with(125);
    away.complains("did not answer").complains(&format!("the API server is {server}"));
}

/// What bash would put on the line for Tab.
fn completed(line: &str) -> String {
    format!(
        "source <(koncli completion bash); COMP_WORDS=({line} ''); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); \
         COMP_TYPE=9; _clap_complete_koncli koncli '' \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '<%s>' \"${{COMPREPLY[@]}}\""
    )
}

#[tokio::test]
async fn bash_completes_names_of_the_cluster_that_was_typed() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let (team, prod) = (plane.namespace("team").await, plane.namespace("prod").await);
    let user = team.user(&["konductor-lease-user", "konductor-policy-author"]).await;
    for name in ["db-migration", "db-backup", "report"] {
        team.create_lease(name, "10m").await;
    }
    prod.create_lease("only-in-prod", "10m").await;
    policies::upload(&team, "weekdays", "policy.wasm", &policies::always("{}")).await;
    hold(&team, "report", "ana").await;

    for (line, expected) in [
        ("koncli lease status", "<db-backup><db-migration><report>"),
        ("koncli lease run", "<db-backup><db-migration><report>"),
        ("koncli lease watch report", "<db-backup>"),
        ("koncli lease once list", "<report>"),
        ("koncli policy status", "<weekdays>"),
        ("koncli lease create x --policy", "<weekdays>"),
        ("koncli lease release report --holder", "<ana>"),
        ("koncli lease status --context", "<"),
        // Another namespace, in which this user may see nothing: silence.
        ("koncli -n prod lease status", ""),
    ] {
        // It gives up after two seconds, which this machine may need.
        eventually(line, async || {
            let told = user.script("host", &completed(line)).run().await.succeeds();
            assert_eq!(told.stderr, "", "{line}");
            if expected.is_empty() {
                assert!(!told.stdout.contains("only-in-prod") && !told.stdout.contains("report"), "{line}: {told}");
            }
            let names = told.stdout.split("<-").next().unwrap_or_default();
            if names.contains(expected) { Ok(()) } else { Err(told) }
        })
        .await;
    }
    for (line, expected) in [
        ("koncli -n prod lease status", &["<only-in-prod>"][..]),
        ("koncli lease status --namespace", &["<prod>", "<team>"]),
    ] {
        eventually(line, async || {
            let told = plane.admin_script(&completed(line)).run().await.succeeds();
            if expected.iter().all(|name| told.stdout.contains(name)) { Ok(()) } else { Err(told) }
        })
        .await;
    }

    // As a person does it: a bash on a terminal, a few letters, and Tab.
    let shell = user.script("host", "exec bash --norc --noprofile -i").on_terminal(10, 100);
    shell.types("source <(koncli completion bash); echo load''ed\n");
    shell.says("loaded").await;
    shell.types("koncli lease status rep\t");
    shell.says("koncli lease status report ").await;

    // Nobody answers: silence, and soon. The port is nobody's.
    let away =
        user.script("host", &completed("koncli lease status")).env("KUBECONFIG", "nothing").run().await.succeeds();
    assert!(away.stderr.is_empty() && !away.stdout.contains("report"), "{away}");

    // The script is for every shell.
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        user.koncli(&format!("completion {shell}")).run().await.succeeds().prints("KONCLI_COMPLETE");
    }
}

#[tokio::test]
async fn kubectl_runs_it_as_its_plugin() {
    let plane = ControlPlane::installed().await;
    let _controller = Controller::start(&plane, ControllerOptions::default()).await;
    let team = plane.namespace("team").await;
    let user = team.user(&["konductor-lease-user"]).await;
    let koncli = binary("koncli").expect("built");
    let kubectl = |words: &str| {
        let cli = user.script("host", &format!("kubectl {words}"));
        cli.tool("kubectl-konductor", &koncli)
    };
    kubectl("konductor lease create db --ttl 1m").run().await.succeeds();
    kubectl("konductor lease acquire db --holder me").run().await.succeeds().prints("db acquired by me");
    let json = kubectl("konductor lease status db -o json").run().await.succeeds().json();
    assert_eq!(json["status"]["holder"], "me");
    let missing = kubectl("konductor lease status dbx").run().await.exits_with(4);
    missing.complains("kubectl konductor: cannot").complains("kubectl konductor lease create dbx");
    let help = kubectl("konductor lease acquire --help").run().await.succeeds();
    let help =
        help.prints("Usage: kubectl konductor lease acquire").prints("  kubectl konductor lease acquire db-migration");
    assert!(!help.stdout.contains("koncli"), "{help}");
    kubectl("konductor lease acquire").run().await.exits_with(2).complains("Usage: kubectl konductor lease acquire");
    kubectl("konductor lease run db --holder me -- printenv KONDUCTOR_LEASE").run().await.succeeds().prints("db");
    kubectl("plugin list").run().await.prints("kubectl-konductor");
    // From 1.26 on kubectl completes through this, with the words behind `kubectl konductor`: names of leases, no files.
    let completes = user.script("host", "kubectl_complete-konductor lease status ''");
    let told = completes.tool("kubectl_complete-konductor", &koncli).run().await.succeeds();
    assert!(told.stdout.starts_with("db\n") && told.stdout.ends_with("\n:4\n"), "{told}");
}

#[tokio::test]
async fn every_command_has_a_page_of_the_manual() {
    let plane = ControlPlane::start(Options::default()).await;
    let directory = plane.directory().join("man1");
    let written = plane.koncli("man -o json").arg(&directory).run().await.succeeds().json();
    let pages: Vec<_> = written["pages"].as_array().expect("pages").iter().filter_map(|page| page.as_str()).collect();
    for page in
        ["koncli.1", "koncli-lease.1", "koncli-lease-watch.1", "koncli-lease-once-list.1", "koncli-policy-new.1"]
    {
        assert!(pages.contains(&page), "{page} in {pages:?}");
    }
    for page in &pages {
        let text = std::fs::read_to_string(directory.join(page)).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    assert!(!pages.iter().any(|page| page.contains("watchdog")), "{pages:?}");
    plane.koncli("man").run().await.succeeds().prints(".SH NAME");
    plane.koncli("man /dev/null/x").run().await.exits_with(5).complains("cannot write the manual into");
}
