//! A change of a plugin's version, from the compiled component to the moment all workers run it.

use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, PoisonError};

use crate::plugin::{Component, Description, Instance, PluginPlan, StateLayout};

/// A version that stands ready for all workers.
pub struct SwapOrder {
    /// Index in the plan.
    pub step: usize,
    pub step_name: String,
    pub digest: String,
    pub file: String,
    /// One configured instance a worker.
    instances: Vec<Mutex<Option<Instance>>>,
    /// Told when the checkpoint that names the new version is decided, or that it will not be.
    done: SyncSender<u64>,
}

impl SwapOrder {
    pub fn new(
        step: usize,
        step_name: String,
        component: &Component,
        file: String,
        instances: Vec<Instance>,
        done: SyncSender<u64>,
    ) -> Self {
        let digest = component.digest().to_owned();
        let instances = instances.into_iter().map(|i| Mutex::new(Some(i))).collect();
        Self {
            step,
            step_name,
            digest,
            file,
            instances,
            done,
        }
    }

    /// The instance of one worker; each takes its own once.
    pub fn take(&self, worker: usize) -> Option<Instance> {
        self.instances[worker]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The checkpoint that names this version is decided.
    pub fn decided(&self, checkpoint: u64) {
        // The caller may have gone away; the swap stands all the same.
        let _ = self.done.try_send(checkpoint);
    }
}

impl std::fmt::Debug for SwapOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwapOrder")
            .field("step", &self.step_name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

/// Why version `new` cannot take over from `old`: every difference, or nothing.
pub fn differences(
    old: (&Description, &PluginPlan),
    new: (&Description, &PluginPlan),
) -> Vec<String> {
    let mut all = Vec::new();
    let (was, is) = (old.0, new.0);
    if was.state != is.state {
        all.push(format!(
            "state layout: {} in force, {} in the new version",
            layout(was.state),
            layout(is.state)
        ));
    }
    if was.state_version != is.state_version {
        all.push(format!(
            "state version: {} in force, {} in the new version (converting state is not supported yet)",
            was.state_version, is.state_version
        ));
    }
    if was.alarms != is.alarms {
        all.push(format!(
            "alarms: {:?} in force, {:?} in the new version",
            was.alarms, is.alarms
        ));
    }
    if was.order != is.order {
        all.push(format!(
            "order: {:?} in force, {:?} in the new version",
            was.order, is.order
        ));
    }
    ports(old.1, new.1, &mut all);
    all
}

fn ports(old: &PluginPlan, new: &PluginPlan, all: &mut Vec<String>) {
    for port in &old.ports {
        match new.ports.iter().find(|p| p.name == port.name) {
            None => all.push(format!(
                "port `{}` is missing in the new version",
                port.name
            )),
            Some(p) if p.new_rows != port.new_rows => {
                all.push(format!(
                    "port `{}`: one version makes new rows, the other passes rows on",
                    port.name
                ));
            }
            Some(p) => {
                let columns = |p: &crate::plugin::PluginPort| {
                    p.adds
                        .iter()
                        .map(|f| {
                            format!(
                                "{} {}{}",
                                f.name(),
                                f.data_type(),
                                if f.is_nullable() { "?" } else { "" }
                            )
                        })
                        .collect::<Vec<_>>()
                };
                if columns(p) != columns(port) {
                    all.push(format!(
                        "port `{}` gives [{}] in force, [{}] in the new version",
                        port.name,
                        columns(port).join(", "),
                        columns(p).join(", ")
                    ));
                }
            }
        }
    }
    for port in new
        .ports
        .iter()
        .filter(|p| old.ports.iter().all(|o| o.name != p.name))
    {
        all.push(format!(
            "port `{}` is new; a new port needs a restart",
            port.name
        ));
    }
    let order = |p: &PluginPlan| p.ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    if all.is_empty() && order(old) != order(new) {
        all.push(format!(
            "ports stand as {:?} in force, as {:?} in the new version",
            order(old),
            order(new)
        ));
    }
}

fn layout(layout: StateLayout) -> String {
    match layout {
        StateLayout::None => "none".into(),
        StateLayout::Fixed(words) => format!("fixed, {words} words"),
        StateLayout::Blob => "blob".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::plugin::{AlarmClock, PluginPort, RowOrder};

    fn description(state: StateLayout, state_version: u32) -> Description {
        Description {
            name: "p".into(),
            version: "0.1.0".into(),
            config_schema: "{}".into(),
            state,
            state_version,
            alarms: AlarmClock::None,
            order: RowOrder::Arrival,
        }
    }

    fn plan(ports: &[(&str, &str)]) -> PluginPlan {
        let port = |&(name, column): &(&str, &str)| PluginPort {
            name: name.into(),
            adds: vec![Arc::new(Field::new(column, DataType::Float64, false))],
            new_rows: false,
        };
        PluginPlan {
            reads: Vec::new(),
            ports: ports.iter().map(port).collect(),
        }
    }

    #[test]
    fn every_difference_is_named() {
        let (old, same) = (
            description(StateLayout::Fixed(3), 1),
            plan(&[("main", "z")]),
        );
        assert_eq!(
            differences((&old, &same), (&old, &same)),
            Vec::<String>::new()
        );
        for (new, ports, expected) in [
            (
                description(StateLayout::Fixed(4), 1),
                &[("main", "z")][..],
                "4 words",
            ),
            (description(StateLayout::Blob, 1), &[("main", "z")], "blob"),
            (
                description(StateLayout::Fixed(3), 2),
                &[("main", "z")],
                "state version: 1",
            ),
            (old.clone(), &[("main", "score")], "score Float64"),
            (old.clone(), &[("other", "z")], "`main` is missing"),
            (
                old.clone(),
                &[("main", "z"), ("more", "z")],
                "`more` is new",
            ),
        ] {
            let all = differences((&old, &same), (&new, &plan(ports)));
            assert!(
                all.iter().any(|d| d.contains(expected)),
                "{expected}: {all:?}"
            );
        }
    }
}
