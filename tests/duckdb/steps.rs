//! The pipeline of a run, and for each of its results the query that gives the same.

use rand::Rng;
use rand::rngs::StdRng;

use super::data::{LEFT, RIGHT};

const SECOND: i64 = 1_000_000;

/// What the steps of one run are set to, in seconds.
#[derive(Debug, Clone)]
pub struct Settings {
    pub every: i64,
    pub size: i64,
    pub gap: i64,
    pub before: i64,
    pub after: i64,
    pub top: usize,
    pub lateness: i64,
    /// Records of a file in an epoch.
    pub per_epoch: usize,
}

impl Settings {
    pub fn random(rng: &mut StdRng) -> Self {
        let every = [1, 7, 10, 60, 3_600][rng.random_range(0..5)];
        Self {
            every,
            size: every * rng.random_range(2..5),
            gap: rng.random_range(1..=2 * every),
            before: rng.random_range(0..=2 * every),
            after: rng.random_range(0..=2 * every),
            top: rng.random_range(1..4),
            lateness: [0, every / 2, 5 * every][rng.random_range(0..3)],
            per_epoch: rng.random_range(5..60),
        }
    }
}

/// A result: the step that gives it, and the query.
pub struct Check {
    pub step: &'static str,
    pub sql: String,
    pub times: &'static [&'static str],
}

/// Aggregates that both engines define alike, as (name, ours, theirs).
const AGGREGATES: [(&str, &str, &str); 26] = [
    ("rows", "count(*)", "count(*)"),
    ("ns", "count(n)", "count(n)"),
    ("kinds", "count(distinct n)", "count(distinct n)"),
    ("total", "sum(n)", "sum(n)::bigint"),
    (
        "ending",
        "last_value(id order by at, id)",
        "last(id order by us, id)",
    ),
    ("xs", "sum(x)", "sum(x)"),
    ("mean", "avg(x)", "avg(x)"),
    ("middle_n", "avg(n)", "avg(n)"),
    ("least", "min(n)", "min(n)"),
    ("most", "max(x)", "max(x)"),
    ("first_word", "min(s)", "min(s)"),
    ("last_word", "max(s)", "max(s)"),
    ("spread", "stddev(x)", "stddev(x)"),
    ("spread_pop", "stddev_pop(x)", "stddev_pop(x)"),
    ("variance", "var_samp(n)", "var_samp(n)"),
    ("variance_pop", "var_pop(n)", "var_pop(n)"),
    ("median", "median(x)", "median(x)"),
    ("covariance", "covar_pop(n, x)", "covar_pop(n, x)"),
    ("all_positive", "bool_and(n > 0)", "bool_and(n > 0)"),
    ("some_positive", "bool_or(n > 0)", "bool_or(n > 0)"),
    ("bits", "bit_xor(n)", "bit_xor(n)"),
    ("mask", "bit_or(n)", "bit_or(n)"),
    (
        "large",
        "count(*) filter (where n > 2)",
        "count(*) filter (where n > 2)",
    ),
    (
        "share",
        "sum(n) * 1.0 / count(*)",
        "sum(n) * 1.0::double / count(*)",
    ),
    (
        "opening",
        "first_value(id order by at, id)",
        "first(id order by us, id)",
    ),
    (
        "words",
        "string_agg(s, '|' order by id)",
        "string_agg(s, '|' order by id)",
    ),
];

fn ours(count: usize) -> String {
    let items = AGGREGATES[..count].iter();
    let items: Vec<String> = items
        .map(|(name, sql, _)| format!("{name} = \"{sql}\""))
        .collect();
    format!("aggregate = {{ {} }}", items.join(", "))
}

fn theirs(count: usize) -> String {
    let items = AGGREGATES[..count].iter();
    let items: Vec<String> = items
        .map(|(name, _, sql)| format!("{sql} as {name}"))
        .collect();
    items.join(", ")
}

const ALL: usize = AGGREGATES.len();
const SOME: usize = 13;

/// The pipeline file without its head.
pub fn pipeline(s: &Settings, checks: &[Check]) -> String {
    let mut text = String::new();
    let fields = |null: &str| {
        format!(
            "{{ id = \"int\", c = \"int{null}\", k = \"string?\", n = \"int?\", x = \"float?\", s = \"string?\", at = \"timestamp\" }}"
        )
    };
    for (i, file) in LEFT.iter().chain(&RIGHT).enumerate() {
        let name = file.trim_end_matches(".jsonl");
        // Rows that are read as one may differ in what can be null.
        let fields = fields(["", "?"][i % 2]);
        text += &format!(
            "[sources.{name}]\nfile = {{ path = \"{file}\" }}\nfields = {fields}\nlimit = {{ per_epoch = {} }}\n\
             event_time = {{ field = \"at\", lateness = \"{}s\" }}\n",
            s.per_epoch, s.lateness
        );
    }
    text += "[steps.l]\nfrom = [\"l1\", \"l2\"]\n[steps.r]\nfrom = [\"r1\", \"r2\"]\n";
    text += &windows(s);
    text += &joins(s);
    for check in checks {
        let step = check.step;
        text += &format!(
            "[sinks.{step}_out]\nfrom = [\"{step}\"]\nfile = {{ path = \"{step}.jsonl\" }}\n"
        );
    }
    text
}

fn windows(s: &Settings) -> String {
    let Settings {
        every,
        size,
        gap,
        top,
        ..
    } = s;
    let (all, some) = (ours(ALL), ours(SOME));
    format!(
        "[steps.tumbling]\nfrom = [\"l1\", \"l2\"]\nkey = [\"c\", \"k\"]\nwindow = {{ tumbling = \"{every}s\" }}\n{all}\n\
         [steps.sliding]\nfrom = \"l\"\nkey = [\"c\", \"k\"]\nwindow = {{ sliding = \"{size}s\", every = \"{every}s\" }}\n{all}\n\
         [steps.sessions]\nfrom = \"l\"\nkey = [\"c\", \"k\"]\nwindow = {{ session = \"{gap}s\" }}\n{all}\n\
         [steps.whole]\nfrom = [\"l\", \"r\"]\nwindow = {{ tumbling = \"{size}s\" }}\n{some}\n\
         [steps.ranked]\nfrom = \"l\"\nkey = [\"c\", \"k\"]\nwindow = {{ tumbling = \"{size}s\" }}\naggregate = {{ rows = \"count(*)\" }}\n\
         top = {{ n = {top}, by = \"rows desc, c, k\" }}\n\
         [steps.of_windows]\nfrom = \"tumbling\"\nkey = [\"k\"]\nwindow = {{ tumbling = \"{size}s\" }}\n\
         aggregate = {{ windows = \"count(*)\", most = \"max(rows)\" }}\n\
         [steps.once]\nfrom = \"l\"\ndeduplicate = {{ on = [\"id\"], within = \"3650d\" }}\n\
         [steps.once_out]\nfrom = \"once\"\nselect = [\"id\", \"c\", \"k\", \"n\"]\n"
    )
}

fn joins(s: &Settings) -> String {
    let mut text = String::new();
    for kind in ["inner", "left", "right", "full"] {
        text += &format!(
            "[steps.{kind}]\njoin = {{ left = \"l\", right = \"r\", on = [\"c\", \"k\"], before = \"{}s\", after = \"{}s\", \
             kind = \"{kind}\" }}\nselect = [\"left.id as l\", \"left.c as lc\", \"right.id as r\", \"right.n\"]\n",
            s.before, s.after
        );
    }
    text + &format!(
        "[steps.of_pairs]\nfrom = \"full\"\nkey = [\"lc\"]\nwindow = {{ tumbling = \"{}s\" }}\n\
         aggregate = {{ rows = \"count(*)\", ls = \"count(l)\", rs = \"count(r)\", last = \"max(r)\" }}\n",
        s.every
    )
}

const BOUNDS: &[&str] = &["window_start", "window_end"];

pub fn checks(s: &Settings) -> Vec<Check> {
    let (every, size, gap) = (s.every * SECOND, s.size * SECOND, s.gap * SECOND);
    let start =
        |time: &str, every: i64| format!("({time} - (({time} % {every}) + {every}) % {every})");
    let bounds = |size: i64| format!("w as window_start, w + {size} as window_end");
    let (all, some) = (theirs(ALL), theirs(SOME));
    let tumbling = format!(
        "select c, k, {}, {all} from (select *, {} as w from l) group by c, k, w",
        bounds(every),
        start("us", every)
    );
    let pair = format!(
        "join r on l.c = r.c and l.k = r.k and r.us between l.us - {} and l.us + {}",
        s.before * SECOND,
        s.after * SECOND
    );
    let check = |step, sql, times| Check { step, sql, times };
    let mut checks = vec![
        check("tumbling", tumbling.clone(), BOUNDS),
        check(
            "sliding",
            format!(
                "select c, k, {}, {all} from (select l.*, {} - j * {every} as w from l, range({}) x(j)) group by c, k, w",
                bounds(size),
                start("us", every),
                s.size / s.every
            ),
            BOUNDS,
        ),
        check(
            "sessions",
            format!(
                "with gaps as (select *, us - lag(us) over (partition by c, k order by us) as d from l), \
                 numbered as (select *, count(*) filter (where d is null or d >= {gap}) over (partition by c, k order by us) as g from gaps) \
                 select c, k, min(us) as window_start, max(us) + {gap} as window_end, {all} from numbered group by c, k, g"
            ),
            BOUNDS,
        ),
        check(
            "whole",
            format!(
                "select {}, {some} from (select *, {} as w from (from l union all from r)) group by w",
                bounds(size),
                start("us", size)
            ),
            BOUNDS,
        ),
        check(
            "ranked",
            format!(
                "select c, k, {}, n as rows from (select *, row_number() over (partition by w order by n desc, c, k nulls last) as place \
                 from (select c, k, {} as w, count(*) as n from l group by all)) where place <= {}",
                bounds(size),
                start("us", size),
                s.top
            ),
            BOUNDS,
        ),
        check(
            "of_windows",
            format!(
                "select k, {}, count(*) as windows, max(rows) as most from (select *, {} as w from (select k, rows, window_end - 1000 as t \
                 from ({tumbling}))) group by k, w",
                bounds(size),
                start("t", size)
            ),
            BOUNDS,
        ),
        check("once_out", "select distinct id, c, k, n from l".into(), &[]),
        check(
            "of_pairs",
            format!(
                "select lc, {}, count(*) as rows, count(l) as ls, count(r) as rs, max(r) as last from (select *, {} as w from \
                 (select l.c as lc, l.id as l, r.id as r, greatest(l.us, r.us) as t from l full {pair})) group by lc, w",
                bounds(every),
                start("t", every)
            ),
            BOUNDS,
        ),
    ];
    for kind in ["inner", "left", "right", "full"] {
        let sql = format!("select l.id as l, l.c as lc, r.id as r, r.n from l {kind} {pair}");
        checks.push(check(kind, sql, &[]));
    }
    checks
}
