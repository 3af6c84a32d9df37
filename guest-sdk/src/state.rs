//! The state of a key: how it is read from and written to what travels with a call.

use crate::bindings::{self, FixedState, StateLayout, VarValues};
use crate::bits::{Bits, is_set};
use crate::{Duration, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// What a plugin keeps for each key. Implemented in one of two ways:
///
/// - `#[derive(State, Default)]` on a struct of 8-byte fields (`u64`, `i64`, `f64`, [`Timestamp`], [`Duration`]): a fixed
///   layout without decoding, the fastest.
/// - `#[derive(Serialize, Deserialize, Default)]` on any type: MessagePack, decoded once a key and call.
///
/// `()` keeps nothing.
pub trait State: Default {
    #[doc(hidden)]
    type Store: Store<Self>;
    #[doc(hidden)]
    fn layout() -> StateLayout;
}

/// The states of the groups of one call.
#[doc(hidden)]
pub trait Store<S>: Sized {
    fn open(state: bindings::State, groups: usize) -> Result<Self, String>;
    /// Lets `act` change the state of a group; what it returns says whether to forget it instead.
    fn change(&mut self, group: usize, act: impl FnOnce(&mut S) -> bool) -> Result<(), String>;
    /// The new states, and which of them differ from the old.
    fn finish(self) -> Result<(bindings::State, Bits), String>;
}

/// A struct of 8-byte fields, derived with `#[derive(State)]`.
#[doc(hidden)]
pub trait FixedWords: Default {
    const WORDS: usize;
    fn load(words: &[u64]) -> Self;
    fn store(&self, words: &mut [u64]);
}

/// A field of a fixed state.
#[doc(hidden)]
pub trait Word: Copy {
    fn from_word(word: u64) -> Self;
    fn to_word(self) -> u64;
}

macro_rules! word {
    ($($type:ty, $from:expr, $to:expr;)*) => {$(
        impl Word for $type {
            #[inline(always)]
            fn from_word(word: u64) -> Self {
                $from(word)
            }
            #[inline(always)]
            fn to_word(self) -> u64 {
                $to(self)
            }
        }
    )*};
}

word! {
    u64, std::convert::identity, std::convert::identity;
    i64, |word| word as i64, |value| value as u64;
    f64, f64::from_bits, f64::to_bits;
    Timestamp, |word| Timestamp(word as i64), |value: Timestamp| value.0 as u64;
    Duration, |word| Duration(word as i64), |value: Duration| value.0 as u64;
}

/// States held as the words that crossed. A state is read before and written after each use: some loads and stores,
/// cheaper than to keep track of what is decoded.
#[doc(hidden)]
pub struct FixedStore<S> {
    words: Vec<u64>,
    present: Bits,
    dirty: Bits,
    states: PhantomData<S>,
}

impl<S: FixedWords> Store<S> for FixedStore<S> {
    fn open(state: bindings::State, groups: usize) -> Result<Self, String> {
        let bindings::State::Fixed(state) = state else {
            return Err("the state has another form than the plugin described".to_owned());
        };
        let short = state
            .present
            .as_ref()
            .is_some_and(|bits| bits.len() * 8 < groups);
        if state.words.len() != groups * S::WORDS || short {
            return Err(format!(
                "{} state words for {groups} keys of {} words",
                state.words.len(),
                S::WORDS
            ));
        }
        Ok(FixedStore {
            present: Bits::copy(state.present.as_deref(), groups),
            words: state.words,
            dirty: Bits::repeat(false, groups),
            states: PhantomData,
        })
    }

    #[inline]
    fn change(&mut self, group: usize, act: impl FnOnce(&mut S) -> bool) -> Result<(), String> {
        let words = &mut self.words[group * S::WORDS..(group + 1) * S::WORDS];
        let mut state = if self.present.get(group) {
            S::load(words)
        } else {
            S::default()
        };
        let forget = act(&mut state);
        state.store(words);
        // Every key of a call was touched by a row or an alarm; to compare words would rarely save a write.
        self.dirty.set(group, true);
        self.present.set(group, !forget);
        Ok(())
    }

    fn finish(self) -> Result<(bindings::State, Bits), String> {
        let present = (!self.present.all()).then(|| self.present.into_bytes());
        Ok((
            bindings::State::Fixed(FixedState {
                words: self.words,
                present,
            }),
            self.dirty,
        ))
    }
}

/// States as MessagePack, decoded when first used.
#[doc(hidden)]
pub struct BlobStore<S> {
    old: VarValues,
    slots: Vec<Slot<S>>,
}

enum Slot<S> {
    Unread,
    Read(S),
    Forgotten,
}

fn blob(values: &VarValues, group: usize) -> &[u8] {
    let first = values.offsets[0];
    let at = |i: usize| (values.offsets[i] - first) as usize;
    &values.data[at(group)..at(group + 1)]
}

fn decode<S: DeserializeOwned>(bytes: &[u8]) -> Result<S, String> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        format!("the state of a key cannot be read ({error}): was its type changed without a new STATE_VERSION?")
    })
}

impl<S: Serialize + DeserializeOwned + Default> Store<S> for BlobStore<S> {
    fn open(state: bindings::State, groups: usize) -> Result<Self, String> {
        let old = match state {
            bindings::State::Blob(values) if values.offsets.len() == groups + 1 => values,
            bindings::State::None if is_empty::<S>() => VarValues {
                offsets: vec![0; groups + 1],
                data: Vec::new(),
            },
            _ => return Err("the state has another form than the plugin described".to_owned()),
        };
        Ok(BlobStore {
            old,
            slots: (0..groups).map(|_| Slot::Unread).collect(),
        })
    }

    #[inline]
    fn change(&mut self, group: usize, act: impl FnOnce(&mut S) -> bool) -> Result<(), String> {
        let slot = &mut self.slots[group];
        if !matches!(slot, Slot::Read(_)) {
            let bytes = blob(&self.old, group);
            let fresh = bytes.is_empty() || matches!(slot, Slot::Forgotten);
            *slot = Slot::Read(if fresh { S::default() } else { decode(bytes)? });
        }
        if let Slot::Read(state) = slot
            && act(state)
        {
            *slot = Slot::Forgotten;
        }
        Ok(())
    }

    fn finish(self) -> Result<(bindings::State, Bits), String> {
        let mut dirty = Bits::default();
        if is_empty::<S>() {
            return Ok((bindings::State::None, dirty));
        }
        let mut new = VarValues {
            offsets: vec![0],
            data: Vec::with_capacity(self.old.data.len()),
        };
        for (group, slot) in self.slots.iter().enumerate() {
            let (old, start) = (blob(&self.old, group), new.data.len());
            match slot {
                Slot::Unread => dirty.push(false),
                Slot::Forgotten => dirty.push(!old.is_empty()),
                Slot::Read(state) => {
                    rmp_serde::encode::write(&mut new.data, state).map_err(|error| {
                        format!("the state of a key cannot be written: {error}")
                    })?;
                    dirty.push(new.data[start..] != *old);
                }
            }
            let end =
                i32::try_from(new.data.len()).map_err(|_| "the states of a call exceed 2 GiB")?;
            new.offsets.push(end);
        }
        Ok((bindings::State::Blob(new), dirty))
    }
}

fn is_empty<S>() -> bool {
    size_of::<S>() == 0
}

impl<S: Serialize + DeserializeOwned + Default> State for S {
    type Store = BlobStore<S>;
    fn layout() -> StateLayout {
        if is_empty::<S>() {
            StateLayout::None
        } else {
            StateLayout::Blob
        }
    }
}

/// States of many keys written under an older `STATE_VERSION`.
pub struct OldState(pub(crate) bindings::State);

/// The same states under the present version.
pub struct NewState(pub(crate) bindings::State);

impl OldState {
    /// Converts each state: `Old` is the type that the older version kept, `New` the one of today.
    pub fn convert<Old: State, New: State>(
        self,
        convert: impl Fn(Old) -> New,
    ) -> Result<NewState, String> {
        let groups = match (&self.0, Old::layout()) {
            (bindings::State::Blob(values), _) => values.offsets.len().saturating_sub(1),
            (bindings::State::Fixed(state), StateLayout::Fixed(words)) => {
                state.words.len() / words.max(1) as usize
            }
            _ => return Err("the old state has another form than its type".to_owned()),
        };
        let known: Vec<bool> = (0..groups).map(|group| has_state(&self.0, group)).collect();
        let mut old = Old::Store::open(self.0, groups)?;
        let mut new = New::Store::open(empty(New::layout(), groups), groups)?;
        for group in (0..groups).filter(|group| known[*group]) {
            let mut converted = None;
            old.change(group, |state| {
                converted = Some(convert(std::mem::take(state)));
                false
            })?;
            new.change(group, |state| {
                *state = converted.take().unwrap_or_default();
                false
            })?;
        }
        Ok(NewState(new.finish()?.0))
    }
}

fn has_state(state: &bindings::State, group: usize) -> bool {
    match state {
        bindings::State::None => false,
        bindings::State::Fixed(state) => is_set(state.present.as_deref(), group),
        bindings::State::Blob(values) => !blob(values, group).is_empty(),
    }
}

fn empty(layout: StateLayout, groups: usize) -> bindings::State {
    match layout {
        StateLayout::None => bindings::State::None,
        StateLayout::Fixed(words) => bindings::State::Fixed(FixedState {
            words: vec![0; words as usize * groups],
            present: Some(vec![0; groups.div_ceil(8)]),
        }),
        StateLayout::Blob => bindings::State::Blob(VarValues {
            offsets: vec![0; groups + 1],
            data: Vec::new(),
        }),
    }
}
