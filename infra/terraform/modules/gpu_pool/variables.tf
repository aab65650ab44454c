variable "name" {
  description = "Of the pool: a host of the fleet (LORAPLEX_FLEET), and part of its resources' names."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,30}$", var.name))
    error_message = "name: lower-case letters, digits and -, at most 31."
  }
}

variable "installation" {
  description = "As in LORAPLEX_EC2_INSTALLATION: whose instances these are."
  type        = string
  default     = "loraplex"
}

variable "accelerator" {
  description = "A10G, L4, L40S, A100 or H100. One replica has one GPU: types with one GPU come first."
  type        = string

  validation {
    condition     = contains(["A10G", "L4", "L40S", "A100", "H100"], var.accelerator)
    error_message = "accelerator is one of A10G, L4, L40S, A100, H100."
  }
}

variable "instance_types" {
  description = "Instead of the accelerator's own, the one that is wanted most first."
  type        = list(string)
  default     = null
}

variable "spot" {
  description = "Spot instances: cheaper, and taken with two minutes' notice; their requests go on elsewhere."
  type        = bool
  default     = false
}

variable "warm" {
  description = "So many instances wait, stopped, with the container image on their disks: they cost these, and start sooner. Not with spot."
  type        = number
  default     = 0

  validation {
    condition     = var.warm >= 0 && (var.warm == 0 || !var.spot)
    error_message = "warm: 0 or more, and 0 for spot instances, which can't be stopped."
  }
}

variable "vpc_id" {
  type = string
}

variable "subnet_ids" {
  description = "Private subnets, one a zone, that reach the image's registry."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "Name at least one subnet."
  }
}

variable "ami_id" {
  description = "An image with NVIDIA's driver, Docker and the AWS command line; best with `image` and base models in it. Unset: AWS' deep learning base image."
  type        = string
  default     = null
}

variable "image" {
  description = "The container image of replicas, with its digest or tag."
  type        = string
}

variable "environment_parameter" {
  description = "Name of an SSM parameter (SecureString) with what all replicas share, NAME=VALUE a line: LORAPLEX_REDIS_URL, LORAPLEX_ADAPTER_STORE …"
  type        = string

  validation {
    condition     = startswith(var.environment_parameter, "/")
    error_message = "environment_parameter begins with /, such as /loraplex/replicas."
  }
}

variable "models_uri" {
  description = "Where base models are kept (LORAPLEX_MODEL_STORE), s3://bucket/prefix. Unset: they are in the machine's image, below /var/lib/loraplex/models, or come from the hub."
  type        = string
  default     = null

  validation {
    condition     = var.models_uri == null ? true : can(regex("^s3://[^/]+/.+[^/]$", var.models_uri))
    error_message = "models_uri is s3://BUCKET/PREFIX, without a slash at its end."
  }
}

variable "adapter_buckets" {
  description = "Names of buckets that hold adapters."
  type        = list(string)
  default     = []
}

variable "redis_port" {
  type    = number
  default = 6379
}

variable "redis_cidr" {
  description = "Where Valkey is, seen from the instances."
  type        = string
}

variable "disk_gib" {
  type    = number
  default = 200

  validation {
    condition     = var.disk_gib >= 100
    error_message = "disk_gib: driver, image and a model need 100 at least."
  }
}

variable "kms_key_arn" {
  description = "Encrypts disks and opens the parameter. Unset: AWS' own keys."
  type        = string
  default     = null
}
