//! The real binary between Kafka, RabbitMQ and NATS as they are: behaviours, each over all three. What only a source does is told
//! in `adapters.rs`, over the same servers and without a store.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod access;
mod full;
mod group;
#[expect(dead_code, reason = "the harness is shared, and not all of it is needed here")]
#[path = "../harness/mod.rs"]
mod harness;
mod proxy;
mod refusals;
mod samples;
mod services;
mod story;
mod systems;
mod whole;
mod wires;

/// Each behaviour with each system. The name of a behaviour comes first, so that systems take turns and run side by side.
macro_rules! table {
    ($($module:ident::$behaviour:ident)*) => { $(
        mod $behaviour {
            use crate::{story::tell, systems::System};

            #[test]
            fn kafka() { tell(System::Kafka, crate::$module::$behaviour); }

            #[test]
            fn amqp() { tell(System::Amqp, crate::$module::$behaviour); }

            #[test]
            fn nats() { tell(System::Nats, crate::$module::$behaviour); }
        }
    )* };
}

table! {
    whole::binary_comes_back_as_it_was
    whole::structured_comes_back_as_it_was
    whole::nothing_is_lost_and_nothing_is_twice_after_kills
    wires::a_cut_wire_is_a_reason_and_loses_nothing
    wires::a_silent_wire_is_noticed_and_loses_nothing
    full::a_full_store_is_waited_for
    group::two_brokers_share_the_work_and_one_is_killed
    access::tls_and_logins_open_what_they_are_for_and_nothing_else_suffers
    refusals::a_place_that_is_missing_is_retried_until_it_is_there
    refusals::what_can_never_be_sent_is_a_dead_letter_at_once
}
