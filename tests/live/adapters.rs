//! One suite of behaviour over Kafka, RabbitMQ and NATS as they are: real servers, foreign senders, broken wires.

mod proxy;
mod rig;
mod services;
mod stories;
mod systems;
