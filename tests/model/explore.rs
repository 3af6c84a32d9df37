//! Every state that a model can reach, breadth first.
//!
//! Knows nothing of what it explores. Invariants: a state is looked at once; the way to a violation is a shortest one.

use std::fmt::{Debug, Display};
use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// What is explored.
pub trait Model {
    type State: Clone + Eq + Hash;
    type Event: Copy + Display;
    type Violation: Debug;

    fn first(&self) -> Self::State;
    /// Calls `each` with everything that can happen in `state`, and the state after it.
    fn next(&self, state: &Self::State, each: &mut dyn FnMut(Self::Event, Self::State));
    /// What must never be, if `state` is that.
    fn violation(&self, state: &Self::State) -> Option<Self::Violation>;
    /// Whether the work is done in `state`. It must be within reach of every state.
    fn is_done(&self, state: &Self::State) -> bool;
}

/// What [`explore`] found.
#[derive(Debug)]
pub struct Explored<V> {
    pub states: usize,
    pub transitions: usize,
    /// The states that cannot reach one that is done; only counted where nothing is violated.
    pub stuck: usize,
    /// The first violation, and what led to it.
    pub violated: Option<(V, Vec<String>)>,
    /// What led to the first state that is stuck.
    pub stuck_after: Vec<String>,
}

/// Looks at every state up to the first violation. Memory: every state once, and every transition as two numbers.
pub fn explore<M: Model>(model: &M) -> Explored<M::Violation> {
    let mut search = Search::<M> {
        found: HashTable::new(),
        hasher: RandomState::new(),
        states: Vec::new(),
        came: Vec::new(),
        transitions: Vec::new(),
    };
    search.add(model.first(), None);
    let mut looked = 0;
    while looked < search.states.len() {
        let state = search.states[looked].clone();
        if let Some(violation) = model.violation(&state) {
            let way = search.way(looked);
            return search.explored(0, Some((violation, way)), Vec::new());
        }
        model.next(&state, &mut |event, next| {
            let to = search.add(next, Some((looked, event)));
            search.transitions.push((looked as u32, to));
        });
        looked += 1;
    }
    let stuck = search.stuck(model);
    let after = stuck.first().map(|&first| search.way(first));
    search.explored(stuck.len(), None, after.unwrap_or_default())
}

struct Search<M: Model> {
    /// Numbers of the states, by their hash.
    found: HashTable<u32>,
    hasher: RandomState,
    states: Vec<M::State>,
    /// Of each state the one before it, and what happened there.
    came: Vec<Option<(usize, M::Event)>>,
    transitions: Vec<(u32, u32)>,
}

impl<M: Model> Search<M> {
    fn add(&mut self, state: M::State, came: Option<(usize, M::Event)>) -> u32 {
        let hash = self.hasher.hash_one(&state);
        let same = |&number: &u32| self.states[number as usize] == state;
        if let Some(&known) = self.found.find(hash, same) {
            return known;
        }
        let number = u32::try_from(self.states.len()).expect("states fit in memory");
        let hash_of = |&number: &u32| self.hasher.hash_one(&self.states[number as usize]);
        self.found.insert_unique(hash, number, hash_of);
        self.states.push(state);
        self.came.push(came);
        number
    }

    fn way(&self, to: usize) -> Vec<String> {
        let mut way = Vec::new();
        let mut at = to;
        while let Some((before, event)) = self.came[at] {
            way.push(event.to_string());
            at = before;
        }
        way.reverse();
        way
    }

    /// The states from which none that is done can be reached, the earliest first.
    fn stuck(&mut self, model: &M) -> Vec<usize> {
        // Backwards from the states that are done.
        self.transitions.sort_unstable_by_key(|&(_, to)| to);
        let mut reaches: Vec<bool> = self.states.iter().map(|s| model.is_done(s)).collect();
        let mut open: Vec<usize> = (0..reaches.len()).filter(|&i| reaches[i]).collect();
        while let Some(at) = open.pop() {
            let from = self
                .transitions
                .partition_point(|&(_, to)| (to as usize) < at);
            let into = self.transitions[from..].iter();
            for &(before, _) in into.take_while(|&&(_, to)| to as usize == at) {
                if !std::mem::replace(&mut reaches[before as usize], true) {
                    open.push(before as usize);
                }
            }
        }
        (0..reaches.len()).filter(|&i| !reaches[i]).collect()
    }

    fn explored(
        self,
        stuck: usize,
        violated: Option<(M::Violation, Vec<String>)>,
        stuck_after: Vec<String>,
    ) -> Explored<M::Violation> {
        Explored {
            states: self.states.len(),
            transitions: self.transitions.len(),
            stuck,
            violated,
            stuck_after,
        }
    }
}
