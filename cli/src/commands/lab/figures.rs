//! Draws the rows of experiments: the paper's figures 6 to 10, and the numbers of its table in section 7.1 as plots.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::report::plot::{Axis, FIGURE_SIZE, Ink, Key, Mark, Plot};
use crate::words::{at_model, counted};
use hindcast_analyzer::measures::mean_sd;
use hindcast_lab::protocols::agreement::Agreement;
use hindcast_lab::protocols::{CleansingRow, NONE, read_rows};

/// Numbers of removed examples for which errors before and after are plotted against each other (figure 10).
const SCATTER_AT: [u64; 2] = [100, 10_000];

/// A plot and the name of its file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    pub name: String,
    pub plot: Plot,
}

/// Draws the rows of `experiment agreement`, and returns the files.
///
/// # Errors
/// If the rows can't be read or a file can't be written.
pub(crate) fn draw_agreement(rows: &Path, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    write(&agreement(&read_rows(Some(rows))?), folder)
}

/// Draws the rows of `experiment cleansing`, and returns the files.
///
/// # Errors
/// If the rows can't be read or a file can't be written.
pub(crate) fn draw_cleansing(rows: &Path, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    write(&cleansing(&read_rows(Some(rows))?), folder)
}

fn write(figures: &[Figure], folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    ensure!(
        !figures.is_empty(),
        "there are no rows to draw figures from"
    );
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut files = Vec::new();
    for figure in figures {
        let path = folder.join(format!("{}.svg", figure.name));
        figure.plot.save(FIGURE_SIZE, &path)?;
        files.push(path);
    }
    Ok(files)
}

/// Plots Kendall's tau and the Jaccard index by setting and method: a mark at the mean, and a line of one standard deviation to
/// either side.
pub(crate) fn agreement(rows: &[Agreement]) -> Vec<Figure> {
    let settings = in_order(rows.iter().map(|r| format!("{}/{}", r.data, r.model)));
    let methods = in_order(rows.iter().map(|r| r.method.clone()));
    if rows.is_empty() {
        return Vec::new();
    }
    let seeds = in_order(rows.iter().map(|r| r.seed)).len();
    let picture = |name: &str, title: &str, label: &str, of: fn(&Agreement) -> f64| {
        let mut marks = Vec::new();
        let mut all = vec![0.0, 1.0];
        for (m, method) in methods.iter().enumerate() {
            let shift = 0.7 * ((m as f64 + 0.5) / methods.len() as f64 - 0.5);
            for (s, setting) in settings.iter().enumerate() {
                let values: Vec<f64> = rows
                    .iter()
                    .filter(|r| {
                        r.method == *method && format!("{}/{}", r.data, r.model) == *setting
                    })
                    .map(of)
                    .collect();
                if values.is_empty() {
                    continue;
                }
                let (mean, sd) = mean_sd(&values);
                let x = s as f64 + shift;
                all.extend([mean - sd, mean + sd]);
                marks.push(Mark::Line {
                    points: vec![(x, mean - sd), (x, mean + sd)],
                    ink: Ink::Series(m),
                });
                marks.push(Mark::Dots {
                    points: vec![(x, mean)],
                    ink: Ink::Series(m),
                    shape: shape(m),
                    size: 5,
                });
            }
        }
        let x = Axis {
            words: settings
                .iter()
                .enumerate()
                .map(|(s, setting)| (s as f64, setting.clone()))
                .collect(),
            ..Axis::around("data and model", []).ends(-0.6, settings.len() as f64 - 0.4)
        };
        Figure {
            name: name.to_owned(),
            plot: Plot {
                title: format!(
                    "{title}, {} (mean, and one standard deviation to either side)",
                    counted(seeds as u64, "seed", "seeds")
                ),
                legend: legend(&methods),
                ..Plot::new(x, Axis::around(label, all), marks)
            },
        }
    };
    vec![
        picture(
            "agreement-tau",
            "Predicted and real influence",
            "Kendall's tau",
            |r| r.tau,
        ),
        picture(
            "agreement-jaccard",
            "The ten largest and smallest, predicted and real",
            "Jaccard index",
            |r| r.jaccard,
        ),
    ]
}

/// For each task and kind of retraining: the test error by the number of removed examples (figures 6 and 8), the same with
/// bands (7 and 9), and errors before and after (10).
pub(crate) fn cleansing(rows: &[CleansingRow]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let groups = rows
        .iter()
        .map(|r| (r.task.clone(), r.retrain, r.at.clone()));
    for (task, retrain, at) in in_order(groups) {
        let rows: Vec<&CleansingRow> = rows
            .iter()
            .filter(|r| r.task == task && r.retrain == retrain && r.at == at)
            .collect();
        let seeds = in_order(rows.iter().map(|r| r.seed)).len();
        let title = format!(
            "{task}, {retrain} retrained, evaluated {}, {}",
            at_model(&at),
            counted(seeds as u64, "seed", "seeds")
        );
        let mut stem = format!("cleansing-{task}-{retrain}");
        if at != "final" {
            stem.push_str(&format!("-{}", at.replace(':', "-")));
        }
        for banded in [false, true] {
            if let Some(plot) = against_k(&rows, &title, banded) {
                let name = if banded {
                    format!("{stem}-bands")
                } else {
                    stem.clone()
                };
                figures.push(Figure { name, plot });
            }
        }
        for k in SCATTER_AT {
            if let Some(plot) = before_after(&rows, &title, k) {
                let name = format!("{stem}-before-after-{k}");
                figures.push(Figure { name, plot });
            }
        }
    }
    figures
}

/// Mean test error of each method by k, and the mean without removal.
fn against_k(rows: &[&CleansingRow], title: &str, banded: bool) -> Option<Plot> {
    let methods = methods(rows);
    let removing = |r: &&&CleansingRow| r.k > 0 && r.method != NONE;
    let largest = rows.iter().filter(removing).map(|r| r.k).max()?;
    let before: BTreeMap<u64, f64> = rows.iter().map(|r| (r.seed, r.test_error_before)).collect();
    let (without_removal, _) = mean_sd(&before.into_values().collect::<Vec<_>>());
    let (mut bands, mut lines) = (Vec::new(), Vec::new());
    let mut all = vec![100.0 * without_removal];
    for (m, method) in methods.iter().enumerate() {
        let mut by_k: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for row in rows.iter().filter(removing).filter(|r| r.method == *method) {
            by_k.entry(row.k)
                .or_default()
                .push(100.0 * row.test_error_after);
        }
        let mut points = Vec::new();
        let mut band = Vec::new();
        for (k, errors) in by_k {
            let (mean, sd) = mean_sd(&errors);
            let x = k as f64;
            points.push((x, mean));
            band.push((x, (mean - sd).max(0.0), mean + sd));
            all.push(mean);
            if banded {
                all.extend([(mean - sd).max(0.0), mean + sd]);
            }
        }
        let ink = Ink::Series(m);
        if banded && band.len() > 1 {
            bands.push(Mark::Band { points: band, ink });
        }
        lines.push(Mark::Line {
            points: points.clone(),
            ink,
        });
        lines.push(Mark::Dots {
            points,
            ink,
            shape: shape(m),
            size: 4,
        });
    }
    let x = Axis::decades("examples removed", [1.0, largest as f64]);
    let ends = x.range;
    let mut marks = bands;
    marks.push(Mark::Line {
        points: vec![
            (ends.0, 100.0 * without_removal),
            (ends.1, 100.0 * without_removal),
        ],
        ink: Ink::Plain,
    });
    marks.append(&mut lines);
    let mut legend = legend(&methods);
    legend.insert(0, (Ink::Plain, Key::Dot(5), "nothing removed".to_owned()));
    // Removing thousands of helpful examples ruins a model. On a linear axis, the errors of interest would be one line at the
    // bottom.
    let reach = all.iter().fold(0.0_f64, |m, x| m.max(*x));
    let y = if without_removal > 0.0 && reach > 400.0 * without_removal {
        Axis::decades("test error, %", all)
    } else {
        Axis::around("test error, %", all)
    };
    Some(Plot {
        title: format!("{title}{}", if banded { " (mean ± sd)" } else { " (mean)" }),
        legend,
        ..Plot::new(x, y, marks)
    })
}

/// Test error with all examples and without `k` of them, one mark per seed.
fn before_after(rows: &[&CleansingRow], title: &str, k: u64) -> Option<Plot> {
    let methods: Vec<String> = methods(rows)
        .into_iter()
        .filter(|m| rows.iter().any(|r| r.method == *m && r.k == k))
        .collect();
    if methods.is_empty() {
        return None;
    }
    let mut marks = Vec::new();
    let mut all = Vec::new();
    for (m, method) in methods.iter().enumerate() {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|r| r.method == *method && r.k == k)
            .map(|r| (100.0 * r.test_error_before, 100.0 * r.test_error_after))
            .collect();
        all.extend(points.iter().flat_map(|p| [p.0, p.1]));
        marks.push(Mark::Dots {
            points,
            ink: Ink::Series(m),
            shape: shape(m),
            size: 5,
        });
    }
    let axis = Axis::around("test error before, %", all);
    let (low, high) = axis.range;
    marks.insert(
        0,
        Mark::Line {
            points: vec![(low, low), (high, high)],
            ink: Ink::Quiet,
        },
    );
    let y = Axis {
        label: "test error after, %".to_owned(),
        ..axis.clone()
    };
    Some(Plot {
        title: format!("{title}, {k} removed; below the line, the error fell"),
        legend: legend(&methods),
        ..Plot::new(axis, y, marks)
    })
}

fn methods(rows: &[&CleansingRow]) -> Vec<String> {
    in_order(rows.iter().map(|r| r.method.clone()).filter(|m| m != NONE))
}

/// The shape of a method's marks. There are six inks; from the seventh method on, inks repeat with other shapes.
fn shape(method: usize) -> usize {
    method + method / 6
}

fn legend(methods: &[String]) -> Vec<(Ink, Key, String)> {
    let entry = |(m, name): (usize, &String)| (Ink::Series(m), Key::Dot(shape(m)), name.clone());
    methods.iter().enumerate().map(entry).collect()
}

/// The distinct values, in the order of their first occurrence.
fn in_order<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut out = Vec::new();
    for one in all {
        if !out.contains(&one) {
            out.push(one);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_analyzer::output::FIGURE;

    const AGREEMENT: &str = "\
data,model,seed,method,tau,jaccard,penalty,validation_loss,largest_change,settings,fingerprint,method_seconds,truth_seconds
adult,logreg,0,sgd,0.9,0.8,0,1,1,aa,bb,1,1
adult,logreg,1,sgd,0.8,0.6,0,1,1,aa,bb,1,1
adult,logreg,0,koh-liang-cg,0.7,0.5,0,1,1,aa,bb,1,1
mnist,dnn,0,sgd,0.5,0.25,0,1,1,aa,bb,1,1
";

    const CLEANSING: &str = "\
task,seed,method,k,retrain,at,test_error_before,test_error_after,test_loss_before,test_loss_after,validation_loss_before,validation_loss_after,settings,fingerprint,seconds
mnist-cnn,0,none,0,last-epoch,final,0.010,0.010,1,1,1,1,aa,bb,1
mnist-cnn,0,sgd,1,last-epoch,final,0.010,0.010,1,1,1,1,aa,bb,1
mnist-cnn,0,sgd,100,last-epoch,final,0.010,0.008,1,1,1,1,aa,bb,1
mnist-cnn,1,sgd,1,last-epoch,final,0.012,0.012,1,1,1,1,aa,bb,1
mnist-cnn,1,sgd,100,last-epoch,final,0.012,0.010,1,1,1,1,aa,bb,1
mnist-cnn,0,random,1,last-epoch,final,0.010,0.011,1,1,1,1,aa,bb,1
mnist-cnn,0,random,100,last-epoch,final,0.010,0.013,1,1,1,1,aa,bb,1
mnist-cnn,0,sgd,100,all,final,0.010,0.007,1,1,1,1,aa,bb,1
";

    fn rows<R: serde::de::DeserializeOwned>(csv: &str) -> Vec<R> {
        csv::Reader::from_reader(csv.as_bytes())
            .deserialize()
            .collect::<Result<_, _>>()
            .unwrap()
    }

    fn dots(plot: &Plot) -> Vec<Vec<(f64, f64)>> {
        let of = |mark: &Mark| match mark {
            Mark::Dots { points, .. } => Some(points.clone()),
            _ => None,
        };
        plot.marks.iter().filter_map(of).collect()
    }

    #[test]
    fn agreement_has_one_mark_per_setting_and_method() {
        let figures = agreement(&rows(AGREEMENT));
        let names: Vec<_> = figures.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["agreement-tau", "agreement-jaccard"]);
        let means: Vec<f64> = dots(&figures[0].plot).iter().map(|d| d[0].1).collect();
        assert!((means[0] - 0.85).abs() < 1e-12, "{means:?}");
        assert_eq!(means[1..], [0.5, 0.7]);
        assert_eq!(figures[0].plot.legend.len(), 2);
        assert_eq!(figures[0].plot.x.words[1].1, "mnist/dnn");
    }

    #[test]
    fn cleansing_has_lines_bands_and_a_scatter_for_each_kind_of_retraining() {
        let figures = cleansing(&rows(CLEANSING));
        let names: Vec<_> = figures.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "cleansing-mnist-cnn-last-epoch",
                "cleansing-mnist-cnn-last-epoch-bands",
                "cleansing-mnist-cnn-last-epoch-before-after-100",
                "cleansing-mnist-cnn-all",
                "cleansing-mnist-cnn-all-bands",
                "cleansing-mnist-cnn-all-before-after-100",
            ]
        );
        let lines = dots(&figures[0].plot);
        assert_eq!(lines.len(), 2, "`none` is the line without removal");
        assert!((lines[0][1].1 - 0.9).abs() < 1e-12, "per cent: {lines:?}");
        let bands = |plot: &Plot| {
            plot.marks
                .iter()
                .filter(|m| matches!(m, Mark::Band { .. }))
                .count()
        };
        assert_eq!((bands(&figures[0].plot), bands(&figures[1].plot)), (0, 2));
        let scatter = dots(&figures[2].plot);
        assert_eq!(scatter[0].len(), 2, "two seeds");
    }

    #[test]
    fn figures_are_written_and_rows_of_another_experiment_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.csv");
        fs::write(&path, CLEANSING).unwrap();
        let into = folder.path().join("figures");
        draw_cleansing(&path, &into).unwrap();
        let files = draw_cleansing(&path, &into).unwrap();
        assert_eq!(files.len(), 6);
        let plain = fs::read_to_string(&files[0]).unwrap().replace(FIGURE, "");
        fs::write(&files[0], &plain).unwrap();
        let error = format!("{:#}", draw_cleansing(&path, &into).unwrap_err());
        assert!(error.contains("isn't a figure"), "{error}");
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), plain);
        for file in files {
            let svg = fs::read_to_string(file).unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            assert!(!svg.contains("NaN") && svg.contains("sgd"));
        }
        let error = format!("{:#}", draw_agreement(&path, folder.path()).unwrap_err());
        assert!(error.contains("not a table of this experiment"), "{error}");
        let header = CLEANSING.lines().next().unwrap();
        fs::write(&path, format!("{header}\n")).unwrap();
        assert!(draw_cleansing(&path, folder.path()).is_err(), "no rows");
    }

    #[test]
    fn a_seventh_method_does_not_look_like_the_first() {
        let pairs: Vec<_> = (0..12).map(|m| (m % 6, shape(m) % 6)).collect();
        for (i, pair) in pairs.iter().enumerate() {
            assert!(!pairs[..i].contains(pair), "{pairs:?}");
        }
    }
}
