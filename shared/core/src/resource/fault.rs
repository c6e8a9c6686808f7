//! What is wrong with a field, for programs.

/// A reason for which a field is refused, the same everywhere: `pavior.type.v1.FieldViolationReason` without its prefix.
macro_rules! faults {
    ($($(#[$about:meta])* $fault:ident = $word:literal),+ $(,)?) => {
        /// Why a field is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$about])* $fault),+
        }

        impl Fault {
            /// Every one of them.
            pub const ALL: &'static [Self] = &[$(Self::$fault),+];

            /// The word, as it stands in errors.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$fault => $word),+ }
            }
        }
    };
}

faults! {
    /// It must be set.
    Required = "REQUIRED",
    /// It does not have the form that it must have.
    Pattern = "PATTERN",
    /// It is too long.
    TooLong = "TOO_LONG",
    /// It has too many elements.
    TooMany = "TOO_MANY",
    /// It is too small or too large.
    OutOfRange = "OUT_OF_RANGE",
    /// It is none of those that there are.
    Unknown = "UNKNOWN",
    /// It cannot be changed any more.
    Immutable = "IMMUTABLE",
    /// It is of another type than it must be.
    Type = "TYPE",
    /// It nests too deep.
    TooDeep = "TOO_DEEP",
    /// Something else has or says the same.
    Duplicate = "DUPLICATE",
    /// It does not fit together with something else.
    Conflict = "CONFLICT",
    /// It is the platform's own.
    Reserved = "RESERVED",
    /// It refers to something that does not exist.
    NotFound = "NOT_FOUND",
    /// Parts of it refer to each other in a circle.
    Cycle = "CYCLE",
    /// It does not fit its schema.
    Schema = "SCHEMA",
    /// It does not parse.
    Syntax = "SYNTAX",
    /// It is a token that was made for something else.
    Token = "TOKEN",
}
