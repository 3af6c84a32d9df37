//! The order in which steps run: each after what it reads. A cycle has none.

use super::{Named, Resolver};

#[derive(Clone, Copy, PartialEq)]
enum Visit {
    New,
    /// Some step that it reads is being visited.
    Open,
    Done,
    /// Part of a cycle.
    Cyclic,
}

impl Resolver<'_> {
    /// Steps by index, inputs first and otherwise in the order of the file. Steps of a cycle are reported once a cycle
    /// and left out.
    pub(super) fn order(&mut self) -> Vec<usize> {
        let mut visits = vec![Visit::New; self.spec.steps.len()];
        let mut order = Vec::new();
        for start in 0..self.spec.steps.len() {
            // The way from `start` to the step being visited; a chain of steps may be longer than the stack is deep.
            let mut way: Vec<(usize, Vec<usize>)> = Vec::new();
            if visits[start] == Visit::New {
                visits[start] = Visit::Open;
                way.push((start, self.reads(start)));
            }
            while let Some((step, left)) = way.last_mut() {
                match left.pop() {
                    None => {
                        if visits[*step] == Visit::Open {
                            visits[*step] = Visit::Done;
                            order.push(*step);
                        }
                        way.pop();
                    }
                    Some(next) if visits[next] == Visit::New => {
                        visits[next] = Visit::Open;
                        let reads = self.reads(next);
                        way.push((next, reads));
                    }
                    Some(next) if visits[next] == Visit::Open => {
                        let from = way.iter().position(|(s, _)| *s == next).unwrap_or(0);
                        let cycle: Vec<usize> = way[from..].iter().map(|(s, _)| *s).collect();
                        cycle.iter().for_each(|s| visits[*s] = Visit::Cyclic);
                        self.cycle(&cycle);
                    }
                    Some(_) => {}
                }
            }
        }
        order
    }

    /// The steps that `step` reads, the last one first.
    fn reads(&self, step: usize) -> Vec<usize> {
        let names = self.spec.steps[step].from.iter().rev();
        let base = |name: &str| {
            name.split_once('.')
                .map_or(name, |(base, _)| base)
                .to_owned()
        };
        names
            .filter_map(|name| match self.names.get(base(&name.value).as_str()) {
                Some(Named::Step(index)) => Some(*index),
                _ => None,
            })
            .collect()
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
        let span = spec.steps[flow[0]].from.first().map(|f| f.span);
        self.findings
            .error(
                span.unwrap_or(spec.steps[flow[0]].name.span),
                format!("steps read each other in a cycle: {}", names.join(" -> ")),
            )
            .help("let one of them read a source, or a step outside of the cycle");
    }
}
