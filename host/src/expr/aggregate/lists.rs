//! Values of each group next to each other, as Arrow's lists hold them.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};

/// The type of lists of `values`.
pub(super) fn list_of(values: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(values, true)))
}

/// Where the list of each group ends: `lengths` summed up.
pub(super) fn offsets(lengths: impl Iterator<Item = usize>) -> Result<OffsetBuffer<i32>, String> {
    let mut end = 0_usize;
    let mut ends = vec![0_i32];
    for length in lengths {
        end += length;
        let end = i32::try_from(end).map_err(|_| "the values of all groups are more than 2^31")?;
        ends.push(end);
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(ends)))
}

/// Lists of `values`; `offsets` end where they do.
pub(super) fn lists(
    values: ArrayRef,
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    Arc::new(ListArray::new(field, offsets, values, nulls))
}

/// The values in `lists`, and where those of each row end. Stored lists are never null.
pub(super) fn unpacked(lists: &ArrayRef) -> Result<(ArrayRef, Vec<usize>), String> {
    let lists = lists.as_list::<i32>();
    if lists.null_count() > 0 {
        return Err("a stored partial result is null".into());
    }
    let offsets = lists.value_offsets();
    let start = offsets[0] as usize;
    let ends: Vec<usize> = offsets[1..].iter().map(|&o| o as usize - start).collect();
    let length = ends.last().copied().unwrap_or(0);
    Ok((lists.values().slice(start, length), ends))
}

/// The group of each value of unpacked lists.
pub(super) fn spread<'a>(
    ends: &'a [usize],
    groups: &'a [usize],
) -> impl Iterator<Item = usize> + 'a {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let lengths = starts.zip(ends).map(|(start, end)| end - start);
    lengths
        .zip(groups)
        .flat_map(|(length, &group)| std::iter::repeat_n(group, length))
}

/// Positions of values sorted by their group, stable; and where each group's end.
pub(super) fn by_group(
    groups: impl Iterator<Item = u32> + Clone,
    total: usize,
) -> Result<(Vec<u32>, OffsetBuffer<i32>), String> {
    let mut lengths = vec![0_usize; total];
    groups
        .clone()
        .for_each(|group| lengths[group as usize] += 1);
    let offsets = offsets(lengths.iter().copied())?;
    let mut next: Vec<i32> = offsets[..total].to_vec();
    let mut order = vec![0_u32; offsets[total] as usize];
    for (position, group) in groups.enumerate() {
        let place = &mut next[group as usize];
        order[*place as usize] = position as u32;
        *place += 1;
    }
    Ok((order, offsets))
}
