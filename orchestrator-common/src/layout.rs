//! The one macro that declares a row shared with the kernel, and the only `unsafe` of this crate.

/// Declares a `repr(C)` struct whose size is exactly the sum of its fields: implicit padding does
/// not compile.
///
/// With the feature `user` the struct is `aya::Pod`, which the same check makes true: there is no
/// padding byte, and the field types that this crate uses accept every bit pattern.
macro_rules! layout {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type,)+ }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$type>())+,
            concat!(stringify!($name), " has implicit padding: add a reserved field"),
        );

        // SAFETY: `repr(C)`, `Copy`, no padding (asserted above), and fields of plain integers
        // only.
        #[cfg(feature = "user")]
        #[allow(unsafe_code)]
        unsafe impl aya::Pod for $name {}
    };
}

pub(crate) use layout;
