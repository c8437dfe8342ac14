//! A guest whose repository is made to do harm where it is brought out.

use std::fs;

use banger_e2e::repository::untouched;
use banger_e2e::workspace::{run, sh, text, workspace};
use banger_e2e::{Content, Out, Rig};

#[tokio::test]
async fn a_hostile_guests_repository_does_not_get_in() {
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let repository = rig.repository("repo").await;
    run(&rig, &["--name", "w", text(&repository), "--", "true"])
        .await
        .ok();
    let before = untouched(&repository);
    let canary = rig.dir().join("canary");
    fs::write(&canary, "alive").unwrap();
    // Each begins from the same repository, and is what the guest's own git would send or says
    // instead of it. A case without `git=` is sound for git and not for the host.
    let git = "mv -n /bin/git /bin/git.real; cat > /bin/git; chmod 755 /bin/git";
    let cases = [
        (
            "a tree with .git",
            "t=$(printf '100755 blob %s\\t.git\\n' $(echo x | git hash-object -w --stdin) | git mktree); git update-ref refs/heads/main $(git commit-tree -m x -p HEAD $t)",
        ),
        (
            "a tree with ..",
            "t=$(printf '040000 tree %s\\t..\\n' $(git rev-parse HEAD:src) | git mktree); git update-ref refs/heads/main $(git commit-tree -m x -p HEAD $t)",
        ),
        ("no bundle", "#!/bin/sh\necho no bundle\n"),
        (
            "a bundle that breaks off",
            "#!/bin/sh\n/bin/git.real \"$@\" | head -c 100\n",
        ),
        (
            "a bundle without an end of its head",
            "#!/bin/sh\nprintf '# v2 git bundle\\n'; while :; do printf '%01000d refs/heads/x\\n' 0; done | head -c 6000000\n",
        ),
        (
            "a reference out of its place",
            "#!/bin/sh\nh=$(/bin/git.real rev-parse HEAD)\nprintf '# v2 git bundle\\n%s refs/heads/../../../config\\n\\n' $h\necho $h | /bin/git.real pack-objects --stdout --revs -q\n",
        ),
        (
            "a commit that is not there",
            "#!/bin/sh\nprintf '# v2 git bundle\\n%040d refs/heads/main\\n\\n' 7\necho | /bin/git.real pack-objects --stdout -q </dev/null\n",
        ),
    ];
    let all = |out: Out| out.text();
    let references = all(rig.git(&repository, &["for-each-ref"]).await.ok());
    for (what, attack) in cases {
        let was = sh(&rig, "git rev-parse refs/heads/main").await.ok().text();
        if let Some(script) = attack.strip_prefix("#!") {
            // There is something to ask for.
            let commit = "git update-ref refs/heads/main $(git commit-tree -m x -p HEAD HEAD^{tree})";
            sh(&rig, commit).await.ok();
            let script = script.replacen(
                '\n',
                "\nif [ $1 != bundle ]; then exec /bin/git.real \"$@\"; fi\n",
                1,
            );
            let words = ["vm", "exec", "w", "--workdir", "/", "--", "sh", "-euc", git];
            rig.banger_fed(words, format!("#!{script}").as_bytes()).await.ok();
        } else {
            sh(&rig, attack).await.ok();
        }
        let out = workspace(&rig, &["export", "w"]).await;
        assert_eq!(out.status, 1, "{what}: {out}");
        assert!(!out.stderr.contains('\x1b'), "{what}: {out}");
        assert_eq!(
            all(rig.git(&repository, &["for-each-ref"]).await.ok()),
            references,
            "{what}"
        );
        assert!(
            untouched(&repository) == before,
            "{what}: the host's work tree was touched"
        );
        let repair = format!(
            "test ! -e /bin/git.real || mv /bin/git.real /bin/git; git update-ref refs/heads/main {was}"
        );
        sh(&rig, &repair).await.ok();
    }

    // Files: links out of the directory, special files, what becomes a program of somebody's.
    let script = format!(
        "ln -s {0} leads-out; ln -s ../../.. up; mkfifo fifo; mknod null c 1 3; echo x > setuid; chmod 6755 setuid
        printf x > \"$(printf 'name\\033[31m')\"",
        rig.dir().display()
    );
    sh(&rig, &script).await.ok();
    let dir = rig.dir().join("out");
    let out = workspace(&rig, &["export", "w", "--dir", text(&dir)]).await;
    assert!(out.status <= 1 && !out.stderr.contains('\x1b'), "{out}");
    if dir.exists() {
        for (path, fields) in tree_listing::list(&dir).unwrap() {
            let mode = u32::from_str_radix(&fields["mode"], 8).unwrap();
            assert_eq!(mode & 0o7000, 0, "{path} {fields:?}");
            let kind = fields["type"].as_str();
            assert!(["file", "directory", "link"].contains(&kind), "{path} {fields:?}");
            if let Some(target) = fields.get("target") {
                let outward = target.starts_with('/') || target.starts_with("../../");
                assert!(!outward, "{path} leads to {target}");
            }
        }
    }
    assert_eq!(fs::read_to_string(&canary).unwrap(), "alive");
    assert!(
        untouched(&repository) == before,
        "the host's work tree was touched"
    );
}
