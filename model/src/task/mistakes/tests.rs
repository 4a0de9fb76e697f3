use toml::{Table, Value};

use crate::task::Task;

fn found(text: &str) -> Vec<(usize, String, String)> {
    let read = Task::read_all(text);
    let mistakes = read.mistakes.into_iter();
    mistakes
        .map(|m| (m.line.unwrap_or(0), m.key, m.what))
        .collect()
}

const TEXT: &str = "\
name = \"mine\"
[data]
source = \"csv\"
train_file = \"a.csv\"
label = \"y\"
train = \"ten\"
[model]
input = [3]
layers = [
  { kind = \"linear\", outt = 4 },
  { kind = \"tahn\" },
  { kind = \"max_pool2d\", kernel = [1, 2, 3] },
  { kind = \"linear\", out = 2, bias = 1 },
]
[loss]
kind = \"cross-entropi\"
[schedule]
kind = \"constant\"
[train]
epochs = -1
batch = 4
order = 7
";

#[test]
fn all_mistakes_are_found_with_their_lines() {
    let found = found(TEXT);
    let expected = [
        (4, "data.train_file", "did you mean \"train_files\"?"),
        (
            6,
            "data.train",
            "expected a whole number, got the text \"ten\"",
        ),
        (10, "model.layers[0].outt", "did you mean \"out\"?"),
        (11, "model.layers[1].kind", "did you mean \"tanh\"?"),
        (12, "model.layers[2].kernel", "got a list of 3"),
        (
            13,
            "model.layers[3].bias",
            "expected true or false, got the number 1",
        ),
        (16, "loss.kind", "did you mean \"cross-entropy\"?"),
        (
            17,
            "schedule.learning_rate",
            "is missing; expected a number: The rate η",
        ),
        (
            20,
            "train.epochs",
            "expected a whole number, got the number -1",
        ),
        (22, "train.order", "expected a text, got the number 7"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((line, key, part), (at, path, what)) in expected.iter().zip(&found) {
        assert_eq!((line, *key), (at, path.as_str()), "{found:#?}");
        assert!(what.contains(part), "{what}");
    }
}

#[test]
fn what_is_readable_is_read_in_spite_of_mistakes() {
    let text = TEXT.replace("[1, 2, 3]", "2").replace(
        "kind = \"constant\"",
        "kind = \"constant\"\nlearning_rate = 0.1",
    );
    let read = Task::read_all(&text.replace("order = 7", ""));
    let task = read.task.expect("every other mistake has a likely meaning");
    assert_eq!(
        task.data.train_files,
        Some(crate::data::Files::One("a.csv".into()))
    );
    assert_eq!((task.train.epochs, task.train.batch), (1, 4));
    assert_eq!(read.data, Some(task.data));
    assert!(Task::read_all(TEXT).task.is_none());
    assert!(Task::read_all(TEXT).data.is_some());
}

#[test]
fn a_task_without_mistakes_is_the_task_that_deserialisation_reads() {
    for builtin in Task::builtins() {
        let read = Task::read_all(builtin.text);
        assert_eq!(read.mistakes, [], "{}", builtin.name);
        assert_eq!(read.task, Task::from_toml(builtin.text).ok());
    }
}

#[test]
fn every_syntax_error_is_named_with_its_line() {
    let found = found("name = \nx = 1 2\n[data\n");
    let lines: Vec<usize> = found.iter().map(|(line, ..)| *line).collect();
    assert!(lines.contains(&1) && lines.contains(&3), "{found:?}");
    assert!(
        found.iter().all(|(_, _, what)| what.contains("not TOML")),
        "{found:?}"
    );
}

/// The tree with each value in turn replaced by values of other types, renamed or removed.
fn changed(tree: &Table) -> Vec<Table> {
    let others = [
        Value::from("some text"),
        Value::from(3),
        Value::from(-2),
        Value::from(0.5),
        Value::from(true),
        Value::Array(vec![]),
        Value::Array(vec![Value::from(1), Value::from(2)]),
        Value::Table(Table::new()),
    ];
    let mut all = Vec::new();
    for (key, value) in tree {
        let mut with = |name: &str, value: Option<Value>| {
            let mut tree = tree.clone();
            tree.remove(key);
            tree.extend(value.map(|value| (name.to_owned(), value)));
            all.push(tree);
        };
        with(key, None);
        with(&format!("{key}x"), Some(value.clone()));
        // serde also reads a table from a list of its values, which no page offers.
        let lists = others
            .iter()
            .filter(|o| !(o.is_array() && value.is_table()));
        for other in lists {
            with(key, Some(other.clone()));
        }
        let inner: Vec<Value> = match value {
            Value::Table(table) => changed(table).into_iter().map(Value::Table).collect(),
            Value::Array(items) => {
                let each = items.iter().enumerate().flat_map(|(i, item)| {
                    let changed = item.as_table().map(changed).unwrap_or_default();
                    changed.into_iter().map(move |table| {
                        let mut items = items.clone();
                        items[i] = Value::Table(table);
                        Value::Array(items)
                    })
                });
                each.collect()
            }
            _ => Vec::new(),
        };
        for value in inner {
            with(key, Some(value));
        }
    }
    all
}

#[test]
fn a_mistake_is_found_exactly_where_deserialisation_fails() {
    let mut wrong = 0;
    for name in ["digits", "adult-dnn", "news-logreg"] {
        let tree = Table::try_from(Task::builtin(name).unwrap()).unwrap();
        for tree in changed(&tree) {
            let text = toml::to_string(&tree).unwrap();
            let read = Task::read_all(&text);
            let problem = toml::from_str::<Task>(&text).err();
            wrong += usize::from(problem.is_some());
            assert_eq!(
                read.mistakes.is_empty(),
                problem.is_none(),
                "{:?}\n{problem:?}\n{text}",
                read.mistakes
            );
            if read.mistakes.is_empty() {
                assert_eq!(read.task, toml::from_str(&text).ok());
            }
        }
    }
    assert!(wrong > 1000, "{wrong} texts were wrong");
}
