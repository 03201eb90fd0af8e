//! Handlers: decode, ask a mechanism, copy out. One file per man-page family.
