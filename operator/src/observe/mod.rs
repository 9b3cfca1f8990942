//! Looking at a cluster: its nodes, its pods and its volumes, and the objects that are watched.

pub mod backups;
pub mod isr;
pub mod view;
pub mod volumes;
pub mod watched;
pub mod zones;
