//! Bitmaps and offsets at the edges; whole columns go through real WebAssembly in `tests/returning.rs`.

use super::*;

#[test]
fn bits_start_on_a_byte_and_end_clean() {
    for (offset, len) in [
        (0, 0),
        (0, 8),
        (0, 3),
        (8, 9),
        (3, 5),
        (5, 20),
        (7, 1),
        (16, 1),
    ] {
        let all = BooleanBuffer::new(Buffer::from_vec(vec![0xff_u8; 8]), offset, len);
        let lowered = bits(&all);
        assert_eq!(lowered.len(), len.div_ceil(8), "{offset}+{len}");
        let set: u32 = lowered.iter().map(|b| b.count_ones()).sum();
        assert_eq!(set as usize, len, "no bit beyond the rows: {offset}+{len}");
        let aligned = offset % 8 == 0 && len % 8 == 0;
        assert_eq!(
            matches!(lowered, Cow::Borrowed(_)),
            aligned,
            "{offset}+{len}"
        );
    }
}

#[test]
fn flags_are_packed_and_unpacked() {
    for len in [0usize, 1, 7, 8, 9, 17] {
        let flags: Vec<bool> = (0..len).map(|i| i % 3 == 1).collect();
        let packed = pack(&flags);
        assert_eq!(packed.len(), len.div_ceil(8));
        assert_eq!(unpack("flags", &packed, len).unwrap(), flags);
    }
    let error = unpack("flags", &[0], 9).unwrap_err();
    assert_eq!(error, "flags has 1 bytes, 9 bits need 2");
}

#[test]
fn nulls_are_left_out_when_there_are_none() {
    let some = Int64Array::from(vec![Some(1), None, Some(3)]);
    assert_eq!(lower(&some).column().validity, Some(&[0b101][..]));
    let slice = some.slice(2, 1);
    assert_eq!(lower(&slice).column().validity, None);
}

#[test]
fn text_of_a_slice_is_only_its_own() {
    let text = StringArray::from(vec!["secret", "a", "bc"]);
    let slice = text.slice(1, 2);
    let lowered = lower(&slice);
    let ValuesIn::Utf8(var) = lowered.column().values else {
        panic!("text is lowered as utf8");
    };
    assert_eq!((var.offsets, var.data), (&[6, 7, 9][..], &b"abc"[..]));
}

#[test]
fn offsets_are_checked_and_moved_to_zero() {
    let var = |offsets: &[i32], data: &[u8]| Var {
        offsets: offsets.to_vec(),
        data: data.to_vec(),
    };
    let checked = check_var(var(&[5, 6, 8], b"abcXX"), 2).unwrap();
    assert_eq!(checked, (vec![0, 1, 3], b"abc".to_vec()));
    assert_eq!(check_var(var(&[0], b""), 0).unwrap(), (vec![0], vec![]));
    for (offsets, count) in [
        (&[][..], 0),
        (&[0, 1], 2),
        (&[0, 2, 1], 2),
        (&[0, 4], 1),
        (&[-1, 0], 1),
        (&[i32::MIN, i32::MAX], 1),
        (&[1, i32::MAX], 1),
    ] {
        assert!(
            check_var(var(offsets, b"abc"), count).is_err(),
            "{offsets:?}"
        );
    }
}

#[test]
fn what_cannot_cross_is_said_to_be_so() {
    let dates = arrow::array::Date32Array::from(vec![1]);
    assert!(copy_out(&dates).unwrap_err().contains("Date32"));
    assert_eq!(value_type(&DataType::Date32), None);
}
