//! The strokes of the ten digits, with one or more variants per digit.
//!
//! Points lie in the unit square, x to the right and y downwards.

/// A point (x, y).
pub(super) type Point = (f64, f64);

/// A stroke through points.
#[derive(Debug)]
pub(super) struct Stroke {
    /// Whether the points are joined by a curve or by straight lines.
    pub(super) curved: bool,
    pub(super) points: &'static [Point],
}

/// The strokes of a digit.
pub(super) type Glyph = &'static [Stroke];

const fn curved(points: &'static [Point]) -> Stroke {
    Stroke {
        curved: true,
        points,
    }
}

const fn straight(points: &'static [Point]) -> Stroke {
    Stroke {
        curved: false,
        points,
    }
}

/// The variants of each digit.
pub(super) const GLYPHS: [&[Glyph]; 10] = [
    &[&[ZERO]],
    &[
        &[straight(&[(0.5, 0.0), (0.5, 1.0)])],
        &[straight(&[(0.28, 0.22), (0.55, 0.0), (0.55, 1.0)])],
    ],
    &[
        &[
            curved(&[
                (0.12, 0.24),
                (0.28, 0.06),
                (0.54, 0.0),
                (0.8, 0.12),
                (0.82, 0.34),
                (0.6, 0.62),
                (0.12, 0.98),
            ]),
            straight(&[(0.12, 0.98), (0.9, 0.98)]),
        ],
        // With a loop at the foot.
        &[curved(&[
            (0.14, 0.2),
            (0.45, 0.0),
            (0.78, 0.14),
            (0.74, 0.46),
            (0.4, 0.84),
            (0.16, 0.92),
            (0.14, 0.78),
            (0.34, 0.78),
            (0.62, 0.94),
            (0.94, 0.9),
        ])],
    ],
    &[
        &[
            curved(&[
                (0.15, 0.12),
                (0.45, 0.0),
                (0.76, 0.12),
                (0.74, 0.36),
                (0.4, 0.47),
            ]),
            curved(&[
                (0.4, 0.47),
                (0.78, 0.56),
                (0.86, 0.78),
                (0.6, 0.98),
                (0.28, 0.98),
                (0.1, 0.86),
            ]),
        ],
        // With a flat top.
        &[
            straight(&[(0.15, 0.02), (0.82, 0.02), (0.42, 0.4)]),
            curved(&[
                (0.42, 0.4),
                (0.76, 0.5),
                (0.84, 0.74),
                (0.6, 0.97),
                (0.3, 0.98),
                (0.1, 0.86),
            ]),
        ],
    ],
    &[
        &[straight(&[
            (0.68, 1.0),
            (0.68, 0.0),
            (0.08, 0.68),
            (0.94, 0.68),
        ])],
        // Open at the top.
        &[
            straight(&[(0.2, 0.02), (0.12, 0.52), (0.9, 0.5)]),
            straight(&[(0.8, 0.04), (0.7, 1.0)]),
        ],
    ],
    &[&[
        straight(&[(0.84, 0.02), (0.24, 0.02), (0.18, 0.44)]),
        curved(&[
            (0.18, 0.44),
            (0.5, 0.36),
            (0.82, 0.5),
            (0.86, 0.74),
            (0.58, 0.97),
            (0.3, 0.98),
            (0.1, 0.88),
        ]),
    ]],
    &[&[curved(&[
        (0.76, 0.02),
        (0.42, 0.2),
        (0.2, 0.5),
        (0.14, 0.76),
        (0.28, 0.96),
        (0.58, 0.99),
        (0.82, 0.82),
        (0.78, 0.6),
        (0.54, 0.5),
        (0.28, 0.6),
        (0.15, 0.78),
    ])]],
    &[
        &[straight(&[(0.1, 0.02), (0.88, 0.02), (0.38, 1.0)])],
        // With a bar.
        &[
            straight(&[(0.1, 0.02), (0.88, 0.02), (0.38, 1.0)]),
            straight(&[(0.34, 0.5), (0.82, 0.5)]),
        ],
    ],
    &[
        &[
            curved(&[
                (0.5, 0.46),
                (0.2, 0.3),
                (0.24, 0.08),
                (0.5, 0.0),
                (0.76, 0.08),
                (0.8, 0.3),
                (0.5, 0.46),
            ]),
            curved(&[
                (0.5, 0.46),
                (0.14, 0.66),
                (0.18, 0.9),
                (0.5, 1.0),
                (0.82, 0.9),
                (0.86, 0.66),
                (0.5, 0.46),
            ]),
        ],
        // In one line from the upper right.
        &[curved(&[
            (0.8, 0.12),
            (0.5, 0.0),
            (0.22, 0.14),
            (0.28, 0.36),
            (0.72, 0.6),
            (0.82, 0.84),
            (0.5, 1.0),
            (0.2, 0.84),
            (0.3, 0.6),
            (0.7, 0.36),
            (0.8, 0.12),
        ])],
    ],
    &[
        &[NINE_HEAD, straight(&[(0.8, 0.24), (0.7, 1.0)])],
        // With a curved foot.
        &[
            NINE_HEAD,
            curved(&[
                (0.8, 0.24),
                (0.82, 0.6),
                (0.7, 0.9),
                (0.44, 0.99),
                (0.2, 0.9),
            ]),
        ],
    ],
];

const ZERO: Stroke = curved(&[
    (0.5, 0.0),
    (0.22, 0.12),
    (0.1, 0.5),
    (0.22, 0.88),
    (0.5, 1.0),
    (0.78, 0.88),
    (0.9, 0.5),
    (0.78, 0.12),
    (0.5, 0.0),
]);
const NINE_HEAD: Stroke = curved(&[
    (0.8, 0.24),
    (0.7, 0.05),
    (0.42, 0.0),
    (0.18, 0.16),
    (0.2, 0.4),
    (0.46, 0.52),
    (0.72, 0.42),
    (0.8, 0.24),
]);
