//! The clients that people have, by a VM's name, after `ssh-config --install`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use banger_e2e::{Content, Out, Pty, Rig, TOOLS, finished, has_program, line_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(120);
const HOST: &str = "dev.vm";
/// What a careful user has, and wants to have afterwards to the byte: no newline at its end.
const OWN: &str = "# mine\r\nHost *\n\tUser somebody\n    Port 2222\nHost old\n  HostName 192.0.2.1";

struct User {
    rig: Rig,
}

impl User {
    fn home(&self) -> PathBuf {
        self.rig.dir().join("h")
    }

    fn config(&self) -> PathBuf {
        self.home().join(".ssh/config")
    }

    /// One of OpenSSH's programs. It takes the home of the passwd file and not `$HOME`, so it is
    /// told where the configuration is; nothing else is said to it.
    fn client(&self, program: &str) -> Command {
        let mut command = self.rig.program(program);
        command.arg("-F").arg(self.config()).args(["-o", "BatchMode=yes"]);
        command
    }

    async fn ssh(&self, words: &[&str]) -> Out {
        finished(self.client("ssh").arg(HOST).args(words), LIMIT).await
    }

    async fn install(&self) -> Out {
        self.rig.banger(["ssh-config", "--install"]).await.ok()
    }
}

#[tokio::test]
async fn every_client_reaches_a_vm_by_its_name() {
    if !has_program("ssh") {
        return banger_e2e::skipped("guest", "no OpenSSH client here");
    }
    let Some(rig) = Rig::new(Content::Tools).await else {
        return;
    };
    let user = User { rig };
    let ssh = user.home().join(".ssh");
    fs::create_dir(&ssh).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(user.config(), OWN).unwrap();
    fs::set_permissions(user.config(), fs::Permissions::from_mode(0o600)).unwrap();

    // Before there is a VM: what is installed finds those that come.
    user.install().await;
    let installed = fs::read_to_string(user.config()).unwrap();
    assert!(installed.contains(OWN), "{installed}");
    assert_eq!(installed.matches("Include").count(), 1, "{installed}");
    let mode = fs::metadata(user.config()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    user.install().await;
    assert_eq!(
        fs::read_to_string(user.config()).unwrap(),
        installed,
        "a second time changes nothing"
    );
    finished(&mut user.rig.new_vm("create", TOOLS, &["dev"]), LIMIT)
        .await
        .ok();

    openssh(&user).await;
    rsync(&user).await;
    paramiko(&user).await;
    editor(&user).await;
    // Another port after the next start, and the name still leads there.
    user.rig.banger(["vm", "restart", "dev"]).await.ok();
    assert_eq!(user.ssh(&["hostname"]).await.ok().text(), "dev");
    // A new name is known, the old one is not.
    user.rig.banger(["vm", "rename", "dev", "other"]).await.ok();
    let other = finished(user.client("ssh").args(["other.vm", "echo", "renamed"]), LIMIT).await;
    assert_eq!(other.ok().text(), "renamed");
    user.ssh(&["true"]).await.exits(255);

    user.rig.banger(["ssh-config", "--uninstall"]).await.ok();
    assert_eq!(fs::read_to_string(user.config()).unwrap(), OWN);
    let left: Vec<_> = fs::read_dir(&ssh)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["config"], "nothing else stays");
    user.rig.banger(["ssh-config", "--uninstall"]).await.ok();
    assert_eq!(fs::read_to_string(user.config()).unwrap(), OWN);
    // Who had none has none.
    fs::remove_dir_all(&ssh).unwrap();
    user.install().await;
    assert!(user.config().exists());
    user.rig.banger(["ssh-config", "--uninstall"]).await.ok();
    assert!(!user.config().exists() || fs::read(user.config()).unwrap().is_empty());
}

async fn openssh(user: &User) {
    let out = user.ssh(&["echo out; echo err >&2; exit 7"]).await.exits(7);
    assert_eq!((out.text().as_str(), out.stderr.as_str()), ("out", "err\n"));
    let home = user.home();
    let data: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(home.join("file"), &data).unwrap();
    fs::set_permissions(home.join("file"), fs::Permissions::from_mode(0o751)).unwrap();
    let scp = |from: String, to: String| {
        let mut command = user.client("scp");
        command.args(["-p", &from, &to]);
        async move { finished(&mut command, LIMIT).await.ok() }
    };
    let at = |name: &str| home.join(name).display().to_string();
    scp(at("file"), format!("{HOST}:/tmp/file")).await;
    scp(format!("{HOST}:/tmp/file"), at("back")).await;
    assert!(fs::read(home.join("back")).unwrap() == data);
    assert_eq!(
        fs::metadata(home.join("back")).unwrap().permissions().mode() & 0o777,
        0o751
    );
    let batch = format!(
        "put {} /tmp/by-sftp\nrename /tmp/by-sftp /tmp/renamed\nget /tmp/renamed {}\n",
        at("file"),
        at("back2")
    );
    fs::write(home.join("batch"), batch).unwrap();
    finished(
        user.client("sftp").arg("-b").arg(home.join("batch")).arg(HOST),
        LIMIT,
    )
    .await
    .ok();
    assert!(fs::read(home.join("back2")).unwrap() == data);
}

async fn rsync(user: &User) {
    let tree = user.home().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/ünïcode"), "x").unwrap();
    let shell = format!("ssh -F {} -o BatchMode=yes", user.config().display());
    let sync = |more: &'static str| {
        let mut command = user.rig.program("rsync");
        command.args(["-a", "--itemize-changes", more, "-e", &shell]);
        command
            .arg(format!("{}/", tree.display()))
            .arg(format!("{HOST}:/tmp/synced/"));
        async move { finished(&mut command, LIMIT).await.ok().text() }
    };
    assert!(sync("--delete").await.contains("sub/"));
    assert_eq!(sync("--checksum").await, "", "a second run has nothing to do");
}

/// A client with an SSH of its own. It reads the file that banger wrote, for it knows no `Include`.
async fn paramiko(user: &User) {
    let python = "/usr/bin/python3";
    let probe = finished(user.rig.program(python).args(["-c", "import paramiko"]), LIMIT).await;
    if probe.status != 0 {
        return banger_e2e::skipped("guest", "no paramiko here: install python3-paramiko");
    }
    let included = user
        .rig
        .program("ssh")
        .args(["-F"])
        .arg(user.config())
        .args(["-G", HOST])
        .output()
        .await
        .unwrap();
    let script = r#"
import sys, paramiko
options = dict(line.split(' ', 1) for line in sys.stdin.read().splitlines() if ' ' in line)
client = paramiko.SSHClient()
client.load_host_keys(options['userknownhostsfile'].strip('"'))
client.set_missing_host_key_policy(paramiko.RejectPolicy())
transport = paramiko.Transport((options['hostname'], int(options['port'])))
key = paramiko.Ed25519Key.from_private_key_file(options['identityfile'].strip('"'))
known = client.get_host_keys().lookup(options['hostkeyalias'])
transport.connect(hostkey=list(known.values())[0], username=options['user'], pkey=key)
channel = transport.open_session()
channel.exec_command('cat; exit 5')
channel.sendall(b'by paramiko')
channel.shutdown_write()
print(channel.makefile().read().decode(), channel.recv_exit_status())
sftp = paramiko.SFTPClient.from_transport(transport)
with sftp.open('/tmp/paramiko', 'w') as f:
    f.write('x' * 1000000)
print(sftp.stat('/tmp/paramiko').st_size, len(sftp.listdir('/')) > 5)
sftp.rename('/tmp/paramiko', '/tmp/moved')
sftp.remove('/tmp/moved')
transport.close()
"#;
    let mut python = user.rig.program(python);
    let mut child = python.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&included.stdout).await.unwrap();
    drop(stdin);
    let out = user.rig.wait("paramiko", child).await.ok();
    assert_eq!(out.text(), "by paramiko 5\n1000000 True");
}

/// What an editor's remote mode does: one connection; by it commands, a server of its own that is
/// brought by standard input and listens on the guest's loopback, forwarded ports, files by SFTP,
/// and a terminal that stays.
async fn editor(user: &User) {
    let socket = user.rig.dir().join("mux");
    let path = format!("ControlPath={}", socket.display());
    let mut master = user.client("ssh");
    // It says that it is up by running the command.
    master
        .args(["-M", "-o", &path, HOST, "echo up; exec cat"])
        .stdin(Stdio::piped());
    let mut master = master.spawn().expect("ssh can be started");
    line_with(master.stdout.as_mut().unwrap(), "up", LIMIT).await;
    let over = |words: &[&str]| {
        let mut command = user.client("ssh");
        command.args(["-o", &path, "-o", "ControlMaster=no"]).args(words);
        command
    };
    let facts = finished(
        over(&[HOST, "uname -sm; echo $HOME; id -u"]).stdin(Stdio::null()),
        LIMIT,
    )
    .await
    .ok();
    assert_eq!(facts.text(), "Linux x86_64\n/root\n0");

    // The server.
    let script = "mkdir -p ~/.editor-server && tar -xf - -C ~/.editor-server && httpd -p 127.0.0.1:7777 -h ~/.editor-server";
    let mut tar = user.rig.program("sh");
    tar.args(["-c", "echo from the server > index.html; tar -cf - index.html"]);
    let archive = finished(&mut tar, LIMIT).await.ok().stdout;
    let mut install = over(&[HOST, script]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = install.stdin.take().unwrap();
    stdin.write_all(&archive).await.unwrap();
    drop(stdin);
    user.rig.wait("bringing the server", install).await.ok();

    // Ports of it, several, added to the connection that is there.
    let ports = [free_port().await, free_port().await];
    for port in ports {
        let forward = format!("{port}:127.0.0.1:7777");
        finished(&mut over(&["-O", "forward", "-L", &forward, HOST]), LIMIT)
            .await
            .ok();
    }
    let asked = ports.iter().cycle().take(20).map(|port| async move {
        let mut stream = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
        stream
            .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("from the server"), "{answer}");
    });
    let mut terminal = Pty::spawn(&over(&["-t", HOST]), 90, 30);
    terminal.send(b"stty size\n");
    terminal.expect("30 90").await;
    futures_util::future::join_all(asked).await;
    let many = (0..6).map(|n| {
        let mut command = over(&[HOST, &format!("echo {n}; cat /etc/passwd | wc -l")]);
        async move { finished(&mut command, LIMIT).await.ok() }
    });
    futures_util::future::join_all(many).await;
    let batch = user.home().join("batch");
    fs::write(&batch, "ls -l .editor-server\nmkdir /tmp/edited\nput batch /tmp/edited/file\nrm /tmp/edited/file\nrmdir /tmp/edited\n").unwrap();
    let mut sftp = user.client("sftp");
    sftp.args(["-o", &path, "-b"]).arg(&batch).arg(HOST);
    finished(&mut sftp, LIMIT).await.ok();
    // The terminal has not noticed any of it.
    terminal.resize(100, 40);
    terminal.send(b"stty size; exit 4\n");
    terminal.expect("40 100").await;
    assert_eq!(terminal.finish().await.0, 4);
    finished(&mut over(&["-O", "exit", HOST]), LIMIT).await.ok();
    user.rig.wait("the connection", master).await;
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}
