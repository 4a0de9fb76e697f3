//! Shards under a real scheduler: the daemons of Slurm, started by the test on this machine.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::common::{CHILD, Tested, fine};

/// The programs that the test needs: Debian's packages munge, slurmctld, slurmd and slurm-client.
const NEEDED: [&str; 6] = [
    "munged",
    "slurmctld",
    "slurmd",
    "sbatch",
    "squeue",
    "scontrol",
];

/// How long the daemons and the jobs may take.
const PATIENCE: Duration = Duration::from_secs(150);

/// A cluster of one machine with two processors.
struct Cluster {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Cluster {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        for name in ["state", "spool"] {
            fs::create_dir(folder.join(name))?;
        }
        let key = folder.join("munge.key");
        fs::write(&key, [7u8; 1024])?;
        owner_only(&key)?;
        let host = String::from_utf8(Command::new("hostname").arg("-s").output()?.stdout)?;
        fs::write(
            folder.join("slurm.conf"),
            configuration(folder, host.trim())?,
        )?;
        let at = |name: &str| folder.join(name).display().to_string();
        let mut cluster = Cluster {
            folder: folder.to_owned(),
            daemons: Vec::new(),
        };
        let munge = [
            "--foreground".to_owned(),
            "--force".to_owned(),
            format!("--socket={}", at("munge.sock")),
            format!("--key-file={}", at("munge.key")),
            format!("--pid-file={}", at("munged.pid")),
            format!("--log-file={}", at("munged.log")),
            format!("--seed-file={}", at("munged.seed")),
        ];
        cluster.daemon("munged", &munge)?;
        until("munged listens", || Ok(folder.join("munge.sock").exists()))?;
        cluster.daemon("slurmctld", &["-D".to_owned(), "-c".to_owned()])?;
        cluster.daemon(
            "slurmd",
            &["-D".to_owned(), "-N".to_owned(), host.trim().to_owned()],
        )?;
        until("the machine is idle", || {
            Ok(cluster
                .said("sinfo", &["-h", "-o", "%T"])
                .is_ok_and(|s| s.trim() == "idle"))
        })?;
        Ok(cluster)
    }

    fn daemon(&mut self, name: &str, words: &[String]) -> anyhow::Result<()> {
        let log = fs::File::create(self.folder.join(format!("{name}.out")))?;
        let child = self
            .command(name)
            .args(words)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemons.push(child);
        Ok(())
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        command
            .env("SLURM_CONF", self.folder.join("slurm.conf"))
            .stdin(Stdio::null());
        command
    }

    /// What a command prints.
    fn said(&self, name: &str, words: &[&str]) -> anyhow::Result<String> {
        let output = self.command(name).args(words).output()?;
        let text = String::from_utf8(output.stdout)?;
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{name} {words:?}: {text}{problem}");
        Ok(text)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn owner_only(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o600),
    )?)
}

fn configuration(folder: &Path, host: &str) -> anyhow::Result<String> {
    let free = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
    let folder = folder.display();
    Ok(format!(
        "ClusterName=hindcast
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={}
SlurmdPort={}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
",
        free()?,
        free()?
    ))
}

/// Waits until something is true.
fn until(what: &str, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Why the test can't run here.
fn missing() -> Option<String> {
    let found = |name: &&str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).any(|folder| folder.join(name).exists())
    };
    if let Some(name) = NEEDED.iter().find(|name| !found(name)) {
        return Some(format!("{name} isn't installed"));
    }
    let id = Command::new("id").arg("-u").output().ok()?;
    (id.stdout != b"0\n").then(|| "the daemons must be started by root".to_owned())
}

#[test]
fn an_array_job_of_slurm_with_a_requeued_task_gives_the_bytes_of_one_process() -> Tested {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let sizes = [
        "data.train=400",
        "data.validation=20",
        "data.test=0",
        "train.epochs=8",
    ];
    let mut record = vec![
        "record",
        "digits",
        "--out",
        "run",
        "--set",
        "train.batch=10",
    ];
    record.extend(sizes.iter().flat_map(|set| ["--set", set]));
    fine(dir, &record);
    let question = [
        "influence",
        "run",
        "--query",
        "validation:0..8",
        "--threads",
        "1",
    ];
    fine(dir, &[&question[..], &["--out", "whole.csv"]].concat());

    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path())?;
    let script = format!(
        "#!/bin/sh\nexec '{CHILD}' {} --out scores.csv --checkpoint-every 0 --shard auto\n",
        question.join(" ")
    );
    fs::write(dir.join("scores.sh"), script)?;
    let (work, script) = (dir.display().to_string(), dir.join("scores.sh"));
    let job = cluster.said(
        "sbatch",
        &[
            "--parsable",
            "--requeue",
            "--array=0-3",
            "-o",
            "out-%a",
            "-D",
            &work,
            &script.display().to_string(),
        ],
    )?;
    let job = job.trim();
    let shards = dir.join("scores.csv.shards");
    let task = format!("{job}_1");
    until("a task has saved its sweep", || {
        Ok(shards.join(".shard-1/part.csv.sweep.safetensors").exists())
    })?;
    cluster.said("scontrol", &["requeue", &task])?;
    until("all tasks have ended", || {
        // Slurm lets a requeued task wait for two minutes.
        let _ = cluster.said(
            "scontrol",
            &["update", &format!("jobid={task}"), "starttime=now"],
        );
        Ok(cluster.said("squeue", &["-h"])?.trim().is_empty())
    })?;

    let said = fine(dir, &["merge", "scores.csv.shards"]);
    for file in ["scores.csv", "scores.csv.meta.json"] {
        let whole = fs::read(dir.join(file.replace("scores", "whole")))?;
        ensure!(fs::read(dir.join(file))? == whole, "{file} differs");
    }
    let record: Value = serde_json::from_slice(&fs::read(shards.join("shard-1/shard.json"))?)?;
    let sittings = record["sittings"].as_array().context("a list")?;
    ensure!(sittings.len() == 2, "the task was not requeued: {record}");
    println!(
        "8 queries by an array job of 4 tasks, one of them requeued: {}",
        said.trim()
    );
    Ok(())
}
