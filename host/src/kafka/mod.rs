//! Apache Kafka through librdkafka; rdkafka is named here only.
