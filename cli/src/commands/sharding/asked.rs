//! Which part of the work this process does, by `--shard` or by the job of a cluster.

use crate::args::ShardArgs;
use crate::commands::Usage;
use hindcast_analyzer::shards::Shard;

/// Number of the task in an array job of Slurm.
const SLURM_TASK: &str = "SLURM_ARRAY_TASK_ID";
/// Number of tasks in it.
const SLURM_TASKS: &str = "SLURM_ARRAY_TASK_COUNT";
/// Its smallest number.
const SLURM_FIRST: &str = "SLURM_ARRAY_TASK_MIN";
/// Its largest number.
const SLURM_LAST: &str = "SLURM_ARRAY_TASK_MAX";
/// Number of the pod in an Indexed Job of Kubernetes, from 0.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";

/// The part that the command line asks for; `None` for all of the work.
pub(crate) fn shard(args: &ShardArgs) -> Result<Option<Shard>, Usage> {
    let Some(text) = &args.shard else {
        return Ok(None);
    };
    let variable = |name: &str| std::env::var(name).ok();
    let parsed = match text.trim() {
        "auto" => of_job(&variable),
        other => match other.strip_prefix("auto/") {
            Some(of) => of_job_with(of, &variable),
            None => other.parse(),
        },
    };
    parsed
        .map(Some)
        .map_err(|problem| Usage(format!("--shard: {problem}")))
}

/// The part of this task of an array job whose numbers have no gaps.
fn of_job(variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let Some(task) = variable(SLURM_TASK) else {
        let why = match variable(KUBERNETES) {
            Some(_) => format!(
                "an Indexed Job of Kubernetes ({KUBERNETES}) doesn't tell its pods how many they are: write --shard auto/N with its number of completions"
            ),
            None => format!(
                "`auto` needs the variables of a job: {SLURM_TASK} and {SLURM_TASKS} (Slurm), or auto/N and {KUBERNETES} (Kubernetes); elsewhere write --shard I/N"
            ),
        };
        return Err(why);
    };
    let task = number(SLURM_TASK, &task)?;
    let of = |name: &str, default: u32| match variable(name) {
        Some(text) => number(name, &text),
        None => Ok(default),
    };
    let first = of(SLURM_FIRST, 0)?;
    let tasks =
        variable(SLURM_TASKS).ok_or(format!("{SLURM_TASK} is set and {SLURM_TASKS} isn't"))?;
    let tasks = number(SLURM_TASKS, &tasks)?;
    let last = of(SLURM_LAST, first.saturating_add(tasks).saturating_sub(1))?;
    let gaps = last.checked_sub(first).and_then(|d| d.checked_add(1)) != Some(tasks);
    if gaps {
        return Err(format!(
            "the array job has {tasks} tasks with numbers from {first} to {last}, so some are left out: use consecutive numbers, or write --shard auto/N with numbers from 0 to N - 1"
        ));
    }
    task.checked_sub(first)
        .and_then(|index| Shard::new(index, tasks))
        .ok_or_else(|| format!("{SLURM_TASK} is {task}, and the tasks are {first} to {last}"))
}

/// The part of this task of a job, whose numbers start at 0, of a given number of parts.
fn of_job_with(of: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let of: u32 = of
        .parse()
        .map_err(|_| format!("auto/{of}: expected a whole number after auto/, such as auto/8"))?;
    let found = [SLURM_TASK, KUBERNETES]
        .into_iter()
        .find_map(|name| Some((name, variable(name)?)));
    let (name, text) = found.ok_or(format!(
        "auto/{of} needs the variable of a job: {SLURM_TASK} (Slurm) or {KUBERNETES} (Kubernetes); elsewhere write --shard I/{of}"
    ))?;
    let index = number(name, &text)?;
    Shard::new(index, of).ok_or_else(|| {
        format!(
            "auto/{of}: {name} is {index}; expected 0 to {}",
            of.saturating_sub(1)
        )
    })
}

fn number(name: &str, text: &str) -> Result<u32, String> {
    text.trim()
        .parse()
        .map_err(|_| format!("{name}: expected a whole number, got `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        move |name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn an_array_job_says_which_part_a_task_is() {
        let slurm = |id, tasks, first, last| {
            let set = [
                (SLURM_TASK, id),
                (SLURM_TASKS, tasks),
                (SLURM_FIRST, first),
                (SLURM_LAST, last),
            ];
            of_job(&job(&set)).map(|shard| shard.to_string())
        };
        assert_eq!(slurm("0", "4", "0", "3").unwrap(), "0/4");
        assert_eq!(slurm("4", "4", "1", "4").unwrap(), "3/4");
        assert!(
            slurm("5", "3", "1", "5")
                .unwrap_err()
                .contains("consecutive")
        );
        assert!(slurm("x", "3", "1", "3").unwrap_err().contains(SLURM_TASK));
        assert!(slurm("9", "3", "1", "3").unwrap_err().contains("1 to 3"));
        // One task that is submitted again alone is not one part of one.
        let again = [(SLURM_TASK, "3"), (SLURM_TASKS, "1")];
        assert!(of_job(&job(&again)).is_err());
        let with =
            |of: &str, set: &[(&str, &str)]| of_job_with(of, &job(set)).map(|s| s.to_string());
        assert_eq!(with("4", &again).unwrap(), "3/4");
        assert_eq!(with("8", &[(KUBERNETES, "7")]).unwrap(), "7/8");
        assert!(
            with("8", &[(KUBERNETES, "8")])
                .unwrap_err()
                .contains("0 to 7")
        );
        assert!(with("8", &[]).unwrap_err().contains("I/8"));
        assert!(with("x", &[]).unwrap_err().contains("auto/8"));
        let kubernetes = [(KUBERNETES, "1")];
        assert!(of_job(&job(&kubernetes)).unwrap_err().contains("auto/N"));
        assert!(of_job(&job(&[])).unwrap_err().contains("I/N"));
    }
}
