//! D-Bus: one file per interface.
