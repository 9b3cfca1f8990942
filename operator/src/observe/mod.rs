//! Looking at a cluster: its nodes, its pods and their zones, and the objects that are watched.

pub mod backups;
pub mod isr;
pub mod pods;
pub mod view;
pub mod watched;
pub mod zones;
