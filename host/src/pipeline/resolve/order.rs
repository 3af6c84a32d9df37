//! The order in which steps run: each after what it reads. A cycle has none.

use std::collections::HashMap;

use super::{Named, Resolver};

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    Open,
    Done,
}

impl Resolver<'_> {
    /// Steps by index, inputs first and otherwise in the order of the file. Steps of a cycle are reported once a cycle
    /// and left out.
    pub(super) fn order(&mut self) -> Vec<usize> {
        let mut visits: HashMap<usize, Visit> = HashMap::new();
        let mut order = Vec::new();
        for start in 0..self.spec.steps.len() {
            // A step reads at most one other, so what leads to `start` is a chain and not a tree.
            let mut chain = Vec::new();
            let mut next = Some(start);
            while let Some(step) = next.filter(|s| !visits.contains_key(s)) {
                visits.insert(step, Visit::Open);
                chain.push(step);
                next = self.reads(step);
            }
            let cycle = next.and_then(|met| {
                let open = visits.get(&met) == Some(&Visit::Open);
                open.then(|| chain.iter().position(|s| *s == met)).flatten()
            });
            if let Some(from) = cycle {
                self.cycle(&chain[from..]);
                // What reads from the cycle is unknown, as the cycle is.
                order.extend(chain[..from].iter().rev());
            } else {
                order.extend(chain.iter().rev());
            }
            for step in chain {
                visits.insert(step, Visit::Done);
            }
        }
        order
    }

    /// The step that `step` reads.
    fn reads(&self, step: usize) -> Option<usize> {
        let from = &self.spec.steps[step].from.as_ref()?.value;
        let base = from.split_once('.').map_or(from.as_str(), |(base, _)| base);
        match self.names.get(base) {
            Some(Named::Step(index)) => Some(*index),
            _ => None,
        }
    }

    /// `steps`: each reads the next, the last reads the first.
    fn cycle(&mut self, steps: &[usize]) {
        let spec = self.spec;
        // Told the way rows would flow, from the step that stands first in the file.
        let mut flow: Vec<usize> = steps.iter().rev().copied().collect();
        let first = (0..flow.len()).min_by_key(|i| flow[*i]).unwrap_or(0);
        flow.rotate_left(first);
        let name = |i: &usize| spec.steps[*i].name.value.as_str();
        let mut names: Vec<_> = flow.iter().map(name).collect();
        names.push(names[0]);
        let span = spec.steps[flow[0]].from.as_ref().map(|f| f.span);
        self.findings
            .error(
                span.unwrap_or(spec.steps[flow[0]].name.span),
                format!("steps read each other in a cycle: {}", names.join(" -> ")),
            )
            .help("let one of them read a source, or a step outside of the cycle");
    }
}
