//! Apache Kafka through librdkafka; rdkafka is named here only.
//!
//! What is read is assigned by hand and positioned by the engine's checkpoint: no consumer group decides anything, group
//! offsets are committed for lag monitors only. What is written is part of the checkpoint's transaction, or goes through one
//! idempotent producer a sink, and a checkpoint waits for the delivery reports of exactly its own records.
//!
//! Invariant: nothing here lets librdkafka choose a position. Where an offset that the broker no longer has, or a topic that
//! was created anew, leads to is said by the pipeline file (`on_data_loss`), told, and counted.

pub mod admin;
mod connection;
mod context;
mod dead_letters;
pub mod decision;
pub mod doctor;
mod doubts;
mod embedded;
mod ending;
mod feed;
mod headers;
mod identity;
mod link;
mod loss;
mod part;
mod producer;
mod properties;
mod queue;
mod reader;
mod records;
mod security;
mod silence;
mod sink;
mod source;
mod start;
mod table;
mod topics;
mod transaction;
mod watch;

pub use dead_letters::KafkaDeadLetters;
pub use embedded::EmbeddedBroker;
pub use feed::GeneratorFeed;
pub use producer::TopicProducer;
pub use properties::check_property;
pub use security::{check_security, is_path, security_risks};
pub use sink::KafkaSink;
pub use source::KafkaSource;
pub use table::KafkaTable;
pub use transaction::TransactionalProducer;

#[cfg(test)]
mod tests;
