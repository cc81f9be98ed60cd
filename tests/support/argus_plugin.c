// A GStreamer plugin with the two elements of a Jetson that a CSI camera needs, made of GStreamer's test picture:
//
//   nvarguscamerasrc   videotestsrc whose caps say memory:NVMM; it has as many sensors as ARGUS_SENSORS (1)
//   nvvidconv          from memory:NVMM to plain memory, turned by flip-method as NVIDIA numbers it
//
// Built by support/argus.py. Names, properties, caps and the numbers of flip-method are those of NVIDIA's
// documentation.

#include <gst/base/gstbasetransform.h>
#include <gst/gst.h>
#include <stdlib.h>

#define NVMM "memory:NVMM"
#define PACKAGE "panrt-tests"

// nvmmswap: buffers pass, and what their caps say of their memory is exchanged.

typedef struct {
  GstBaseTransform parent;
} NvmmSwap;
typedef struct {
  GstBaseTransformClass parent;
} NvmmSwapClass;
G_DEFINE_TYPE(NvmmSwap, nvmm_swap, GST_TYPE_BASE_TRANSFORM)

static GstStaticPadTemplate any_sink =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate any_src = GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);

static GstCaps* swap_caps(GstBaseTransform* element, GstPadDirection from, GstCaps* caps, GstCaps* filter) {
  (void)element, (void)from;
  GstCaps* swapped = gst_caps_copy(caps);
  for (guint i = 0; i < gst_caps_get_size(swapped); i++) {
    gboolean is_nvmm = gst_caps_features_contains(gst_caps_get_features(swapped, i), NVMM);
    gst_caps_set_features(swapped, i, is_nvmm ? gst_caps_features_new_empty() : gst_caps_features_new(NVMM, NULL));
  }
  if (filter != NULL) {
    GstCaps* both = gst_caps_intersect_full(filter, swapped, GST_CAPS_INTERSECT_FIRST);
    gst_caps_unref(swapped);
    return both;
  }
  return swapped;
}

static void nvmm_swap_class_init(NvmmSwapClass* type) {
  GstElementClass* element = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(element, "NVMM", "Filter", "Exchanges NVMM and plain memory in caps", PACKAGE);
  gst_element_class_add_static_pad_template(element, &any_sink);
  gst_element_class_add_static_pad_template(element, &any_src);
  GST_BASE_TRANSFORM_CLASS(type)->transform_caps = swap_caps;
}

static void nvmm_swap_init(NvmmSwap* self) { gst_base_transform_set_passthrough(GST_BASE_TRANSFORM(self), TRUE); }

// nvarguscamerasrc

typedef struct {
  GstBin parent;
  gint sensor_id, sensor_mode;
} ArgusSrc;
typedef struct {
  GstBinClass parent;
} ArgusSrcClass;
G_DEFINE_TYPE(ArgusSrc, argus_src, GST_TYPE_BIN)
enum { SENSOR_ID = 1, SENSOR_MODE };

static GstStaticPadTemplate nvmm_src =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
                            GST_STATIC_CAPS("video/x-raw(" NVMM "), format=NV12, width=[1,8192], height=[1,8192], "
                                            "framerate=[0/1,240/1]"));

static void argus_set(GObject* object, guint id, GValue const* value, GParamSpec* spec) {
  (void)spec;
  ArgusSrc* self = (ArgusSrc*)object;
  *(id == SENSOR_ID ? &self->sensor_id : &self->sensor_mode) = g_value_get_int(value);
}

static void argus_get(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  (void)spec;
  ArgusSrc* self = (ArgusSrc*)object;
  g_value_set_int(value, id == SENSOR_ID ? self->sensor_id : self->sensor_mode);
}

static GstStateChangeReturn argus_change(GstElement* element, GstStateChange change) {
  char const* sensors = getenv("ARGUS_SENSORS");
  if (change == GST_STATE_CHANGE_READY_TO_PAUSED) {
    int count = sensors != NULL ? atoi(sensors) : 1;
    g_print("GST_ARGUS: Creating output stream\n");  // the real one writes such lines to standard output
    if (((ArgusSrc*)element)->sensor_id >= count) {
      GST_ELEMENT_ERROR(element, RESOURCE, NOT_FOUND,
                        ("%s", count ? "Invalid camera device specified" : "No cameras available"), (NULL));
      return GST_STATE_CHANGE_FAILURE;
    }
  }
  return GST_ELEMENT_CLASS(argus_src_parent_class)->change_state(element, change);
}

static void argus_src_class_init(ArgusSrcClass* type) {
  GObjectClass* object = G_OBJECT_CLASS(type);
  object->set_property = argus_set;
  object->get_property = argus_get;
  g_object_class_install_property(object, SENSOR_ID,
                                  g_param_spec_int("sensor-id", "", "", 0, 255, 0, G_PARAM_READWRITE));
  g_object_class_install_property(object, SENSOR_MODE,
                                  g_param_spec_int("sensor-mode", "", "", -1, 255, -1, G_PARAM_READWRITE));
  GstElementClass* element = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(element, "NvArgusCameraSrc", "Video/Capture", "A stand-in", PACKAGE);
  gst_element_class_add_static_pad_template(element, &nvmm_src);
  element->change_state = argus_change;
}

static void add_ghost(GstBin* bin, GstElement* inner, char const* name, GstStaticPadTemplate* shape) {
  GstPad* pad = gst_element_get_static_pad(inner, name);
  GstPadTemplate* template = gst_static_pad_template_get(shape);
  gst_element_add_pad(GST_ELEMENT(bin), gst_ghost_pad_new_from_template(name, pad, template));
  gst_object_unref(template);
  gst_object_unref(pad);
}

static void argus_src_init(ArgusSrc* self) {
  GstElement* picture = gst_element_factory_make("videotestsrc", NULL);
  GstElement* caps = gst_element_factory_make("nvmmswap", NULL);
  self->sensor_mode = -1;
  g_object_set(picture, "is-live", TRUE, NULL);
  gst_bin_add_many(GST_BIN(self), picture, caps, NULL);
  gst_element_link(picture, caps);
  add_ghost(GST_BIN(self), caps, "src", &nvmm_src);
}

// nvvidconv

typedef struct {
  GstBin parent;
  GstElement* flip;
  gint method;
} VidConv;
typedef struct {
  GstBinClass parent;
} VidConvClass;
G_DEFINE_TYPE(VidConv, vid_conv, GST_TYPE_BIN)

static GstStaticPadTemplate nvmm_sink =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw(" NVMM ")"));
static GstStaticPadTemplate plain_src = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS("video/x-raw, format={NV12,I420,BGRx,RGBA}"));

static void conv_set(GObject* object, guint id, GValue const* value, GParamSpec* spec) {
  // none, counterclockwise, 180, clockwise, horizontal, upper right diagonal, vertical, upper left diagonal
  static int const to_videoflip[] = {0, 3, 2, 1, 4, 7, 5, 6};
  (void)id, (void)spec;
  VidConv* self = (VidConv*)object;
  self->method = g_value_get_int(value);
  g_object_set(self->flip, "method", to_videoflip[self->method], NULL);
}

static void conv_get(GObject* object, guint id, GValue* value, GParamSpec* spec) {
  (void)id, (void)spec;
  g_value_set_int(value, ((VidConv*)object)->method);
}

static void vid_conv_class_init(VidConvClass* type) {
  GObjectClass* object = G_OBJECT_CLASS(type);
  object->set_property = conv_set;
  object->get_property = conv_get;
  g_object_class_install_property(object, 1, g_param_spec_int("flip-method", "", "", 0, 7, 0, G_PARAM_READWRITE));
  GstElementClass* element = GST_ELEMENT_CLASS(type);
  gst_element_class_set_static_metadata(element, "NvVidConv", "Filter/Converter/Video", "A stand-in", PACKAGE);
  gst_element_class_add_static_pad_template(element, &nvmm_sink);
  gst_element_class_add_static_pad_template(element, &plain_src);
}

static void vid_conv_init(VidConv* self) {
  GstElement* caps = gst_element_factory_make("nvmmswap", NULL);
  self->flip = gst_element_factory_make("videoflip", NULL);
  gst_bin_add_many(GST_BIN(self), caps, self->flip, NULL);
  gst_element_link(caps, self->flip);
  add_ghost(GST_BIN(self), caps, "sink", &nvmm_sink);
  add_ghost(GST_BIN(self), self->flip, "src", &plain_src);
}

static gboolean plugin_init(GstPlugin* plugin) {
  return gst_element_register(plugin, "nvmmswap", GST_RANK_NONE, nvmm_swap_get_type()) &&
         gst_element_register(plugin, "nvarguscamerasrc", GST_RANK_NONE, argus_src_get_type()) &&
         gst_element_register(plugin, "nvvidconv", GST_RANK_NONE, vid_conv_get_type());
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, panrtargus, "Stand-ins for a Jetson's camera elements",
                  plugin_init, "1.0.0", "LGPL", PACKAGE, "https://example.org")
