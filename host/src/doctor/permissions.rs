//! What this user is not allowed to do, and how it is granted.

use crate::kafka::doctor::{Operation, Operations};

/// What of `needed` is not allowed. Nothing where the broker does not tell: the probe, or the run, shows it.
pub(super) fn lacking(allowed: Option<&Operations>, needed: &[Operation]) -> Vec<Operation> {
    let Some(allowed) = allowed else {
        return Vec::new();
    };
    let lacks = |operation: &&Operation| !allowed.contains(operation);
    needed.iter().filter(lacks).copied().collect()
}

/// `Read and Describe`
pub(super) fn names(operations: &[Operation]) -> String {
    let names: Vec<_> = operations.iter().map(|o| format!("{o:?}")).collect();
    names.join(" and ")
}

/// How `operations` are granted; `resource` as kafka-acls takes it: `--topic clicks`.
pub(super) fn grant(operations: &[Operation], resource: &str) -> String {
    let options: String = operations
        .iter()
        .map(|o| format!(" --operation {o:?}"))
        .collect();
    format!("grant it: kafka-acls --add --allow-principal User:NAME{options} {resource}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_as_kafka_names_it() {
        let allowed = Operations::from([Operation::Describe]);
        let needed = [
            Operation::Read,
            Operation::Describe,
            Operation::DescribeConfigs,
        ];
        let lacks = lacking(Some(&allowed), &needed);
        assert_eq!(names(&lacks), "Read and DescribeConfigs");
        assert_eq!(
            grant(&lacks, "--topic t"),
            "grant it: kafka-acls --add --allow-principal User:NAME --operation Read --operation DescribeConfigs --topic t"
        );
        assert!(lacking(None, &needed).is_empty());
    }
}
