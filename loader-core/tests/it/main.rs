//! The dispatcher, with guests that are mocks.

mod alerts;
mod apis;
mod broadcast;
mod common;
mod config;
mod contracts;
mod dispatcher;
mod events;
mod execute;
mod health;
mod hooks;
mod kept;
mod kv;
mod levels;
mod lifecycle;
mod limits;
mod metrics;
mod network;
mod output;
mod permissions;
mod process;
mod services;
mod stores;
mod streams;
mod supervision;
mod total;
