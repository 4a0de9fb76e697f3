//! Images for training: IDX files, or blurred strokes drawn here.

pub struct Images {
    pub pixels: Vec<f32>,
    pub labels: Vec<u8>,
    order: Vec<usize>,
}

pub struct Batch {
    pub pixels: Vec<f32>,
    pub labels: Vec<usize>,
}

/// Pixels per image.
const SIZE: usize = 784;

/// The next pseudorandom number in [0, 1).
fn noise(state: &mut u64) -> f32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 24) as f32
}

pub fn load(count: usize) -> Images {
    let (pixels, labels) = match (
        std::env::var("HINDCAST_BENCH_IMAGES"),
        std::env::var("HINDCAST_BENCH_LABELS"),
    ) {
        (Ok(images), Ok(labels)) => {
            let images = std::fs::read(images).expect("HINDCAST_BENCH_IMAGES: a readable IDX file");
            let labels = std::fs::read(labels).expect("HINDCAST_BENCH_LABELS: a readable IDX file");
            println!("training on {count} images from IDX files");
            let pixels = images[16..]
                .iter()
                .take(count * SIZE)
                .map(|&p| f32::from(p) / 255.0)
                .collect();
            (pixels, labels[8..].iter().take(count).copied().collect())
        }
        _ => {
            println!("training on {count} drawn images");
            draw(count)
        }
    };
    let mut state = 9;
    let mut order: Vec<usize> = (0..count).collect();
    for i in (1..count).rev() {
        order.swap(i, (noise(&mut state) * (i + 1) as f32) as usize);
    }
    Images {
        pixels,
        labels,
        order,
    }
}

/// Draws images. A class has three strokes, and each image shifts their ends a little. Borders are constant, as in MNIST.
fn draw(count: usize) -> (Vec<f32>, Vec<u8>) {
    let mut state = 3;
    let strokes: Vec<[f32; 4]> = (0..30)
        .map(|_| [0; 4].map(|_: i32| 6.0 + 16.0 * noise(&mut state)))
        .collect();
    let mut pixels = vec![0.0; count * SIZE];
    let mut labels = Vec::new();
    for picture in pixels.chunks_exact_mut(SIZE) {
        let class = (noise(&mut state) * 10.0) as usize;
        labels.push(class as u8);
        for stroke in &strokes[3 * class..3 * class + 3] {
            let [x0, y0, x1, y1] = stroke.map(|v| v + 4.0 * noise(&mut state) - 2.0);
            for i in 0..24 {
                let s = i as f32 / 23.0;
                let (x, y) = (x0 + s * (x1 - x0), y0 + s * (y1 - y0));
                for (px, py) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                    let (cx, cy) = (x as usize + px, y as usize + py);
                    let ink = (1.0 - (x - cx as f32).abs()).max(0.0)
                        * (1.0 - (y - cy as f32).abs()).max(0.0);
                    let pixel = &mut picture[cy.min(27) * 28 + cx.min(27)];
                    *pixel = (*pixel + ink).min(1.0);
                }
            }
        }
    }
    (pixels, labels)
}

impl Images {
    pub fn batch(&self, step: usize, size: usize) -> Batch {
        let picked: Vec<usize> = (0..size)
            .map(|i| self.order[(step * size + i) % self.order.len()])
            .collect();
        Batch {
            pixels: picked
                .iter()
                .flat_map(|&i| self.pixels[i * SIZE..(i + 1) * SIZE].iter().copied())
                .collect(),
            labels: picked
                .iter()
                .map(|&i| usize::from(self.labels[i]))
                .collect(),
        }
    }
}
