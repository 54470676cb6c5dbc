//! Pure. What is made of the table of keys in `keys.rs`: structs, defaults, reading, reloading.

/// Makes the structs of the configuration, and what is done with each key, from one row per key:
///
/// `name: type = default, reload | restart [, in bounds];`
///
/// A section may end with one section within it, in braces of its own.
macro_rules! configuration {
    (
        { $( $(#[$doc:meta])* $key:ident: $type:ty = $default:expr, $reload:ident; )* }
        $(
            $(#[$about:meta])*
            $section:ident: $group:ident {
                $( $(#[$docs:meta])* $name:ident: $kind:ty = $value:expr, $when:ident
                   $(, in $bounds:expr)?; )*
                $( {
                    $(#[$within:meta])*
                    $part:ident: $part_group:ident {
                        $( $(#[$notes:meta])* $item:ident: $sort:ty = $given:expr, $then:ident; )*
                    }
                } )?
            }
        )*
    ) => {
        /// Everything that can be configured. Each section of the file is a struct of its own.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $( $(#[$doc])* pub $key: $type, )*
            $( $(#[$about])* pub $section: $group, )*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    $( $key: $default, )*
                    $( $section: $group {
                        $( $name: $value, )*
                        $( $part: $part_group { $( $item: $given, )* }, )?
                    }, )*
                }
            }
        }

        $(
            $(#[$about])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $group {
                $( $(#[$docs])* pub $name: $kind, )*
                $( $(#[$within])* pub $part: $part_group, )?
            }

            $(
                $(#[$within])*
                #[derive(Clone, Debug, PartialEq, Eq)]
                pub struct $part_group {
                    $( $(#[$notes])* pub $item: $sort, )*
                }
            )?

            impl $group {
                fn read(&mut self, section: &mut Section<'_>) {
                    $( configuration!(@read section, self.$name, $name $(, $bounds)?); )*
                    $( section.section(stringify!($part), |section| {
                        $( section.key(stringify!($item), &mut self.$part.$item); )*
                    }); )?
                }
            }
        )*

        impl Config {
            fn read_keys(&mut self, root: &mut Section<'_>) {
                $( root.key(stringify!($key), &mut self.$key); )*
                $( root.section(stringify!($section), |section| self.$section.read(section)); )*
            }

            /// Takes over the values of `wanted` that a reload applies. `note` hears of every key
            /// that differs, and whether its value was taken over.
            pub(super) fn take_over(
                &mut self,
                wanted: &Self,
                mut note: impl FnMut(&'static str, bool),
            ) {
                $( configuration!(@take self.$key, wanted.$key, note, stringify!($key), $reload); )*
                $($( configuration!(
                    @take self.$section.$name, wanted.$section.$name, note,
                    concat!(stringify!($section), ".", stringify!($name)), $when
                ); )*
                $($( configuration!(
                    @take self.$section.$part.$item, wanted.$section.$part.$item, note,
                    concat!(stringify!($section), ".", stringify!($part), ".", stringify!($item)),
                    $then
                ); )*)?)*
            }
        }

        /// The names of all keys, each with whether a reload applies a new value.
        const KEYS: &[(&str, bool)] = &[
            $( (stringify!($key), configuration!(@reloads $reload)), )*
            $($( (
                concat!(stringify!($section), ".", stringify!($name)),
                configuration!(@reloads $when)
            ), )*
            $($( (
                concat!(stringify!($section), ".", stringify!($part), ".", stringify!($item)),
                configuration!(@reloads $then)
            ), )*)?)*
        ];
    };
    (@read $section:ident, $target:expr, $name:ident) => {
        $section.key(stringify!($name), &mut $target)
    };
    (@read $section:ident, $target:expr, $name:ident, $bounds:expr) => {
        $section.within(stringify!($name), &mut $target, $bounds)
    };
    (@take $target:expr, $wanted:expr, $note:ident, $key:expr, $when:ident) => {
        if $target != $wanted {
            $note($key, configuration!(@reloads $when));
            if configuration!(@reloads $when) {
                $target.clone_from(&$wanted);
            }
        }
    };
    (@reloads reload) => { true };
    (@reloads restart) => { false };
}

pub(super) use configuration;
